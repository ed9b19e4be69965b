"""The log: structlog, JSON lines in containers, coloured text on a terminal, a rotating file in standalone.

Call `configure_logging` once per process; every module takes `structlog.get_logger(__name__)`. Events are plain
sentences without values; values are keyword arguments. Control characters in values are escaped, so that nobody's
market name writes a line of its own or moves the terminal's cursor. A fault that repeats is one line when it begins
and one when it ends: `RepeatedFault`.
"""

from __future__ import annotations

import logging
import logging.handlers
import sys
import time
from collections.abc import Callable, MutableMapping
from typing import Any

import structlog
from structlog.typing import Processor

from vegamite_common.runtime.metrics import FAULTS, from_zero
from vegamite_common.runtime.section import LogSection

_QUIET = ("aiokafka", "asyncpg.pool", "ccxt", "aiohttp.access", "asyncio", "uvicorn.access")
"""Libraries that log each retry of their own; ours tells the state changes."""

_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))} | {
    0x2028: "\\u2028",
    0x2029: "\\u2029",
    ord("\n"): "\\n",
    ord("\r"): "\\r",
    ord("\t"): "\\t",
    0x202A: "\\u202a",
    0x202B: "\\u202b",
    0x202D: "\\u202d",
    0x202E: "\\u202e",
    0x2066: "\\u2066",
    0x2067: "\\u2067",
    0x2068: "\\u2068",
}


def escape(text: str) -> str:
    """The text with control characters, line separators and direction overrides spelled out."""
    return text.translate(_ESCAPES)


def _escape_values(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    for name, value in event.items():
        if name not in ("exc_info", "exception", "_record", "_from_structlog"):
            event[name] = _escaped(value)
    return event


def _escaped(value: object) -> object:
    if isinstance(value, str):
        return escape(value)
    if isinstance(value, BaseException):
        return escape(f"{type(value).__name__}: {value}")
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_escaped(item) for item in value]
    if isinstance(value, dict):
        return {escape(str(key)): _escaped(item) for key, item in value.items()}
    return value


def configure_logging(section: LogSection, *, service: str) -> None:
    """Send everything that this process logs, libraries included, where `section` says; replaces what was there before.

    With `file`, lines go there as JSON, rotated by size, and only warnings and worse to stderr.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        _named(service),
    ]
    handlers: list[logging.Handler] = [_stderr_handler(section, shared)]
    if section.file is not None:
        handlers[0].setLevel(logging.WARNING)
        handlers.append(_file_handler(section, shared))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
        old.close()
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(section.level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def _named(service: str) -> Processor:
    def add(
        _logger: object, _method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        event.setdefault("service", service)
        return event

    return add


def _formatter(renderer: list[Processor], shared: list[Processor]) -> logging.Formatter:
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            _escape_values,
            *renderer,
        ],
    )


def _json() -> list[Processor]:
    return [
        structlog.processors.format_exc_info,
        structlog.processors.EventRenamer("message"),
        structlog.processors.JSONRenderer(default=str),
    ]


def _stderr_handler(section: LogSection, shared: list[Processor]) -> logging.Handler:
    terminal = sys.stderr.isatty()
    as_text = section.format == "console" or (section.format == "auto" and terminal)
    renderer: list[Processor] = (
        [
            structlog.dev.ConsoleRenderer(
                colors=terminal,
                timestamp_key="time",
                exception_formatter=structlog.dev.plain_traceback,
            )
        ]
        if as_text
        else _json()
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_formatter(renderer, shared))
    return handler


def _file_handler(section: LogSection, shared: list[Processor]) -> logging.Handler:
    assert section.file is not None
    section.file.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.handlers.RotatingFileHandler(
        section.file,
        maxBytes=section.file_max_bytes,
        backupCount=section.file_backups,
        encoding="utf-8",
    )
    handler.setFormatter(_formatter(_json(), shared))
    return handler


class RepeatedFault:
    """One thing that can go wrong again and again: a line when it begins, a count now and then, a line when it is over.

    `event` and `over` are constant texts; what varies goes into the context. Each failure is counted in
    `vegamite_common_faults_total`. It is over once it has gone well for `settle_seconds`: what comes and goes by the second is
    one fault.
    """

    def __init__(
        self,
        event: str,
        *,
        over: str,
        every_seconds: float = 300.0,
        settle_seconds: float = 0.0,
        monotonic: Callable[[], float] = time.monotonic,
        **context: object,
    ) -> None:
        self._log = structlog.get_logger(__name__).bind(**context)
        self._event = event
        self._over = over
        self._every = every_seconds
        self._monotonic = monotonic
        self._settle = settle_seconds
        self._since: float | None = None
        self._told = self._last = 0.0
        self.count = 0
        """How often it failed since it last went well."""
        from_zero(FAULTS, event)

    def failed(self, error: object = "", **values: object) -> None:
        """It failed: logged the first time, then at most every `every_seconds` with the count."""
        now = self._last = self._monotonic()
        self.count += 1
        FAULTS.labels(fault=self._event).inc()
        if self._since is None:
            self._since = self._told = now
            self._log.warning(self._event, error=_one_line(error), **values)
        elif now - self._told >= self._every:
            self._told = now
            self._log.warning(
                self._event,
                error=_one_line(error),
                count=self.count,
                seconds=round(now - self._since),
                **values,
            )

    def went_well(self, **values: object) -> None:
        """It works: logged where it had failed before, with how often and how long."""
        if self._since is None or self._monotonic() - self._last < self._settle:
            return
        lasted = round(self._monotonic() - self._settle - self._since, 1)
        self._log.info(self._over, count=self.count, seconds=lasted, **values)
        self._since = None
        self.count = 0


def _one_line(error: object) -> str:
    text = str(error)
    if isinstance(error, BaseException):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text[:500]
