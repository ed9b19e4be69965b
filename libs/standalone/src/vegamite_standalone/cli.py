"""The `vegamite` command: what each command is called with, and what its exit code says.

0: done. 1: something went wrong on the way. 2: refused before anything was changed, in plain words on stderr.
"""

import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from vegamite_common.domain.market import Market
from vegamite_common.runtime.config import ConfigError, load_settings
from vegamite_common.runtime.lifecycle import EXIT_BUG, EXIT_CONFIG, Stop, run_process
from vegamite_common.runtime.logging import escape

if TYPE_CHECKING:
    from vegamite_standalone.markets import Client

app = typer.Typer(
    name="vegamite",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
markets_app = typer.Typer(help="Which markets a running instance tracks.", no_args_is_help=True)
app.add_typer(markets_app, name="markets")


class ArchiveFormat(StrEnum):
    """What archives may be."""

    BINANCE_AGGTRADES = "binance-aggtrades"
    VEGAMITE_PARQUET = "vegamite-parquet"


ConfigOption = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="A vegamite.toml to read.")
]
DataDirOption = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        metavar="DIR",
        help="Where the instance keeps its data (the user's own data folder; /var/lib/vegamite as root).",
    ),
]


def refuse(text: str) -> typer.Exit:
    """Say why nothing was done, and return what ends the command so."""
    sys.stderr.write(f"{text}\n")
    return typer.Exit(EXIT_CONFIG)


def _run(main: Callable[[Stop], Coroutine[Any, Any, None]]) -> None:
    from vegamite_standalone.process_log import configure_command_log

    configure_command_log()
    code = run_process(main)
    if code:
        raise typer.Exit(code)


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _print_version(asked: bool) -> None:  # noqa: FBT001 -- typer calls it so
    if asked:
        version()
        raise typer.Exit


@app.callback()
def vegamite(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Every trade of the markets you track, as exact candles."""


@app.command()
def run(
    *,
    host: Annotated[str | None, typer.Option(help="The address to listen on (127.0.0.1).")] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="The port; 0 lets the system choose (8000)."),
    ] = None,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
    database_url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="A PostgreSQL to use instead of one of our own."),
    ] = None,
    demo: Annotated[
        bool | None,
        typer.Option("--demo/--no-demo", help="The simulated market sim:DEMO/USD (on)."),
    ] = None,
) -> None:
    """Run everything here: collector, aggregator, API and chart page, in one process."""
    from vegamite_standalone.instance import run_instance
    from vegamite_standalone.settings import load_process_settings

    options = _given(host=host, port=port, data_dir=data_dir, database_url=database_url, demo=demo)
    try:
        settings = load_process_settings(config, options)
    except ConfigError as error:
        raise refuse(str(error)) from None
    _run(lambda stop: run_instance(settings, stop))


@app.command()
def migrate(*, data_dir: DataDirOption = None, config: ConfigOption = None) -> None:
    """Bring a database's schema, and with --config Kafka's topics, to this release."""
    from vegamite_aggregator.config import AggregatorSettings
    from vegamite_aggregator.migrate import migrate as migrate_cluster
    from vegamite_standalone.migrating import migrate_directory
    from vegamite_standalone.settings import load_process_settings

    _one_of(data_dir=data_dir, config=config)
    try:
        if config is not None:
            cluster = load_settings(AggregatorSettings, config)
            _run(lambda _: migrate_cluster(cluster))
        else:
            local = load_process_settings(None, _given(data_dir=data_dir)).standalone
            _run(lambda _: migrate_directory(local))
    except ConfigError as error:
        raise refuse(str(error)) from None
    sys.stdout.write("the schema is up to date\n")


def _one_of(*, data_dir: Path | None, config: Path | None) -> None:
    if data_dir is not None and config is not None:
        raise refuse("--data-dir and --config exclude one another")


@app.command("import")
def import_(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="Archives: plain, .gz or .zip; or Parquet files that maintain archived.",
        ),
    ],
    *,
    market: Annotated[
        str | None,
        typer.Option(metavar="MARKET", help="As binance:XRP/ETH; Parquet files know theirs."),
    ] = None,
    format: Annotated[  # noqa: A002 - the option's name
        ArchiveFormat, typer.Option("--format", help="What the files hold.")
    ],
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
    from_: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="TIME", help="With --to: the files hold every trade from here on …"
        ),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="TIME", help="… up to here, so candles are complete."),
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out broken lines.")] = False,
) -> None:
    """Bring archives of trades in; a trade that is stored already counts once."""
    from vegamite_standalone.import_command import prepare_import, prepare_restore, run_prepared

    _one_of(data_dir=data_dir, config=config)
    try:
        if format is ArchiveFormat.VEGAMITE_PARQUET:
            if from_ is not None or to is not None or skip_bad:
                raise refuse("--from, --to and --skip-bad don't go with vegamite-parquet")
            prepared = prepare_restore(market=market, files=files, data_dir=data_dir, config=config)
        else:
            if market is None:
                raise refuse(f"--market is needed: {format.value} files don't say it")
            prepared = prepare_import(
                market=market,
                files=files,
                covered=(from_, to),
                skip_bad=skip_bad,
                data_dir=data_dir,
                config=config,
            )
    except (ConfigError, ValueError) as error:
        raise refuse(str(error)) from None
    code, lines, refused = run_prepared(prepared)
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stderr.write("".join(f"{line}\n" for line in refused))
    if code or refused:
        raise typer.Exit(code or EXIT_BUG)


@app.command()
def verify(
    *,
    market: Annotated[
        list[str] | None,
        typer.Option(metavar="MARKET", help="As kraken:BTC/USD; again for more of them (all)."),
    ] = None,
    from_: Annotated[
        str | None,
        typer.Option("--from", metavar="TIME", help="Compare from this instant's day on …"),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            "--to", metavar="TIME", help="… up to this one; a day that it cuts is taken whole."
        ),
    ] = None,
    timeframe: Annotated[
        list[str] | None,
        typer.Option(metavar="TIMEFRAME", help="As 1m; again for more of them (all)."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a difference.")] = False,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
) -> None:
    """Compare stored candles with stored trades and print every difference.

    Exit code 0: equal. 1: there are differences. 2: the comparison can't be made. Nothing is changed.
    """
    from vegamite_standalone.verify_command import prepare_verify, run_verify

    _one_of(data_dir=data_dir, config=config)
    try:
        prepared = prepare_verify(
            markets=market or [],
            begin=from_,
            end=to,
            timeframes=timeframe or [],
            as_json=json,
            data_dir=data_dir,
            config=config,
        )
    except (ConfigError, ValueError) as error:
        raise refuse(str(error)) from None
    code = run_verify(prepared)
    if code:
        raise typer.Exit(code)


@app.command()
def rebuild(
    *,
    market: Annotated[str, typer.Option(metavar="MARKET", help="As kraken:BTC/USD.")],
    from_: Annotated[
        str, typer.Option("--from", metavar="TIME", help="From this instant's day on …")
    ],
    to: Annotated[
        str,
        typer.Option(
            "--to", metavar="TIME", help="… up to this one; a day that it cuts is taken whole."
        ),
    ],
    timeout: Annotated[
        float,
        typer.Option(min=1, metavar="SECONDS", help="Give up after so long without any progress."),
    ] = 30.0,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
) -> None:
    """Have candles computed again from the stored trades; what was wrong is revised.

    Whole UTC days, and the longer candles over them. With --config an aggregator has to be running: it does the work.
    """
    from vegamite_standalone.rebuild_command import prepare_rebuild, run_rebuild

    _one_of(data_dir=data_dir, config=config)
    try:
        prepared = prepare_rebuild(
            market=market,
            begin=from_,
            end=to,
            idle_seconds=timeout,
            data_dir=data_dir,
            config=config,
        )
    except (ConfigError, ValueError) as error:
        raise refuse(str(error)) from None
    code, lines = run_rebuild(prepared)
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    if code:
        raise typer.Exit(code)


UrlOption = Annotated[str, typer.Option(metavar="URL", help="Where the instance answers.")]
KeyFileOption = Annotated[
    Path | None,
    typer.Option(
        "--api-key-file",
        metavar="FILE",
        help="The file with the key (admin.key of the data directory).",
    ),
]
DEFAULT_URL = "http://127.0.0.1:8000"


def _client(url: str, key_file: Path | None) -> "Client":
    from vegamite_standalone.admin_key import KEY_FILE
    from vegamite_standalone.config import default_data_directory
    from vegamite_standalone.given_file import require_file
    from vegamite_standalone.markets import Client

    if key_file is not None:
        try:
            require_file(key_file)
        except ValueError as error:
            raise refuse(str(error)) from None
    return Client(url, key_file or default_data_directory() / KEY_FILE)


@contextmanager
def _refusals() -> Iterator[None]:
    from vegamite_standalone.markets import RequestError

    try:
        yield
    except RequestError as error:
        raise refuse(str(error)) from None


@markets_app.command("list")
def list_markets(*, url: UrlOption = DEFAULT_URL, api_key_file: KeyFileOption = None) -> None:
    """List the tracked markets and how each is."""
    from vegamite_standalone.markets import describe_market

    with _refusals():
        tracked = _client(url, api_key_file).tracked()
    rows: list[tuple[str, ...]] = [("market", "state", "last trade", "open gaps", "")]
    # Reasons are an exchange's words: they neither style the list nor move the cursor.
    rows += [tuple(map(escape, describe_market(market))) for market in tracked]
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    console = Console()
    for number, row in enumerate(rows):
        # A line a market, never cut, whatever the terminal's width: a program may read it.
        line = "  ".join(map(set_cell_size, row, widths)).rstrip()
        console.print(Text(line, style="" if number else "dim"), soft_wrap=True)


@markets_app.command("add")
def add_markets(
    markets: Annotated[list[str], typer.Argument(metavar="MARKET...", help="As kraken:BTC/USD.")],
    *,
    history_from: Annotated[
        str | None, typer.Option(metavar="TIME", help="Where coverage should begin (now).")
    ] = None,
    url: UrlOption = DEFAULT_URL,
    api_key_file: KeyFileOption = None,
) -> None:
    """Track markets, from now or from an earlier instant on."""
    with _refusals():
        _client(url, api_key_file).track([_market(text) for text in markets], history_from)
    sys.stdout.write("".join(f"{market} is tracked\n" for market in markets))


@markets_app.command("remove")
def remove_markets(
    markets: Annotated[list[str], typer.Argument(metavar="MARKET...", help="As kraken:BTC/USD.")],
    *,
    url: UrlOption = DEFAULT_URL,
    api_key_file: KeyFileOption = None,
) -> None:
    """Stop tracking markets; what is stored of them stays."""
    from vegamite_standalone.markets import NotTrackedError

    parsed = dict.fromkeys(_market(text) for text in markets)
    removed = 0
    with _refusals():
        client = _client(url, api_key_file)
        for market in parsed:
            try:
                client.untrack(market)
            except NotTrackedError as error:
                sys.stderr.write(f"{error}\n")
            else:
                removed += 1
                sys.stdout.write(f"{market} isn't tracked any more\n")
    if removed < len(parsed):
        raise typer.Exit(EXIT_BUG if removed else EXIT_CONFIG)


def _market(text: str) -> str:
    try:
        return Market.parse(text).key
    except ValueError as error:
        raise refuse(str(error)) from None


@app.command()
def version() -> None:
    """Print the version."""
    from vegamite_standalone.version import installed_version

    sys.stdout.write(f"{installed_version()}\n")
