"""Statements of InfluxQL, which InfluxDB 1.8 needs for what version 2 has an API for, and which the client doesn't speak."""

import json
import ssl
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlencode

from vegamite_aggregator.config import InfluxSection
from vegamite_aggregator.ports import SinkError

_TROUBLES = {401: "refused", 403: "refused", 404: "missing", 405: "missing", 501: "missing"}


def quoted(name: str) -> str:
    """Return a name as InfluxQL has it."""
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def literal(text: str) -> str:
    """Return a text as InfluxQL has it."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def database_of(bucket: str) -> tuple[str, str]:
    """Return the database and the retention policy that a bucket's name stands for."""
    database, _, policy = bucket.partition("/")
    return database, policy or "autogen"


def ask_statement(
    section: InfluxSection, url: str, token: str, statement: str, *, database: str | None = None
) -> Any:
    """Carry out a statement and return the answer; raises `SinkError`, or OSError."""
    context = None
    if url.startswith("https:"):
        context = ssl.create_default_context(
            cafile=str(section.ssl_ca_file) if section.ssl_ca_file else None
        )
    asked = {"q": statement} if database is None else {"q": statement, "db": database}
    request = urllib.request.Request(  # noqa: S310 -- the configuration allows http and https alone
        f"{url.rstrip('/')}/query",
        data=urlencode(asked).encode(),
        headers={"Authorization": f"Token {token}"},
    )
    try:
        with urllib.request.urlopen(  # noqa: S310
            request, timeout=section.timeout_ms / 1000, context=context
        ) as answer:
            told = json.load(answer)
    except urllib.error.HTTPError as error:
        state: Any = _TROUBLES.get(error.code, "away")
        words = error.read()[:300].decode(errors="replace")
        raise SinkError(state, f"HTTP status {error.code}: {words}") from None
    except ValueError as error:
        raise SinkError("away", f"not an answer of InfluxDB: {error}") from None
    for result in told.get("results", ()):
        if "error" in result:
            raise SinkError("refused", f"{statement}: {result['error']}")
    return told
