"""`vegamite-api [run|track|keys create|keys list|keys revoke]`: the service, its first markets, and its keys."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from vegamite_api.bootstrap import open_key_store, open_market_store, open_service
from vegamite_api.config import ApiSettings
from vegamite_api.core.access import ApiKey, Scope
from vegamite_api.ports import StoreError
from vegamite_api.service.first_markets import UnknownExchangeError, track_first
from vegamite_api.service.key_ring import create_key
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import DAY, HOUR, Micros, format_time
from vegamite_common.runtime.clock import wall_now
from vegamite_common.runtime.config import ConfigError, load_settings
from vegamite_common.runtime.lifecycle import EXIT_CONFIG, StartError, Stop, run_process
from vegamite_common.runtime.logging import configure_logging, escape
from vegamite_common.runtime.management import open_management


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name, and return the process's exit code."""
    options = _parser().parse_args(arguments)
    try:
        settings = load_settings(ApiSettings, getattr(options, "config", None))
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_CONFIG
    configure_logging(settings.log, service="api")
    if options.command == "keys":
        return run_process(lambda _: _keys(settings, options))
    if options.command == "track":
        now = wall_now()
        # From a full hour on, so that the first candles are whole.
        history_from = (
            (now - options.history_hours * HOUR) // HOUR * HOUR if options.history_hours else now
        )
        return run_process(lambda _: _track(settings, options.markets, history_from))
    return run_process(lambda stop: _run(settings, stop))


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    # Not set unless given: a sub-command's default would hide what was said before it.
    common.add_argument(
        "--config",
        default=argparse.SUPPRESS,
        type=Path,
        metavar="FILE",
        help="the configuration (TOML); VEGAMITE_* lie over it",
    )
    parser = argparse.ArgumentParser(prog="vegamite-api", description=__doc__, parents=[common])
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("run", help="serve until a signal (the default)", parents=[common])
    track = commands.add_parser(
        "track",
        help="track markets of a new instance, straight in the database; later ones come by HTTP",
        parents=[common],
    )
    track.add_argument("markets", nargs="+", type=_market, metavar="MARKET")
    track.add_argument(
        "--history-hours",
        type=_hours,
        default=0,
        metavar="N",
        help="fetch so many hours before now, too",
    )
    keys = commands.add_parser("keys", help="create, list and revoke API keys", parents=[common])
    actions = keys.add_subparsers(dest="action", required=True, metavar="ACTION")
    create = actions.add_parser(
        "create", help="make a key and print it, this once", parents=[common]
    )
    create.add_argument("--scope", choices=[scope.value for scope in Scope], default="read")
    create.add_argument("--name", required=True, help="whose it is, or what for")
    create.add_argument(
        "--expires-days", type=_days, metavar="N", help="valid for so many days; else until revoked"
    )
    actions.add_parser("list", help="show every key, but for the keys themselves", parents=[common])
    revoke = actions.add_parser(
        "revoke", help="make a key worthless, within seconds", parents=[common]
    )
    revoke.add_argument("key_id", metavar="KEY_ID")
    return parser


def _days(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 36_500:
        raise argparse.ArgumentTypeError("1 to 36500 days are allowed")
    return int(text)


def _hours(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 <= int(text) <= 876_000:
        raise argparse.ArgumentTypeError("0 to 876000 hours are allowed")
    return int(text)


def _market(text: str) -> Market:
    try:
        return Market.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


async def _run(settings: ApiSettings, stop: Stop) -> None:
    section = settings.api
    async with (
        open_service(settings) as service,
        open_management(service.health, host=section.management_host, port=section.management_port),
    ):
        await service.run(stop)


async def _keys(settings: ApiSettings, options: argparse.Namespace) -> None:
    async with open_key_store(settings) as store:
        if options.action == "create":
            days = options.expires_days
            expires = None if days is None else wall_now() + days * DAY
            scope = Scope(options.scope)
            key, stored = await create_key(
                store, scope=scope, name=options.name, expires_time=expires
            )
            sys.stderr.write(f"{_described(stored)}\nthe key itself, shown this once:\n")
            sys.stdout.write(f"{key}\n")
        elif options.action == "list":
            for stored in await store.keys():
                sys.stdout.write(f"{_described(stored)}\n")
        elif not await store.revoke(options.key_id):
            raise StartError(f"there is no key {escape(options.key_id)}")


async def _track(settings: ApiSettings, markets: list[Market], history_from: Micros) -> None:
    async with open_market_store(settings) as store:
        try:
            new = await track_first(store, markets, history_from)
        except UnknownExchangeError as error:
            raise StartError(str(error)) from None
        except StoreError as error:
            raise StartError(f"PostgreSQL can't be asked: {error}") from None
    for market in dict.fromkeys(markets):
        state = "tracked from now on" if market in new else "tracked already"
        sys.stdout.write(f"{market.key}\t{state}\n")


def _described(key: ApiKey) -> str:
    until = (
        "until revoked" if key.expires_time is None else f"until {format_time(key.expires_time)}"
    )
    made = format_time(key.created_time)
    return f"{key.key_id}\t{key.scope.value}\t{escape(key.name)}\tmade {made}, valid {until}"


if __name__ == "__main__":
    sys.exit(main())
