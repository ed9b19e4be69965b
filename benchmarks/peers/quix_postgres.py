"""Quix Streams: trades into a table of PostgreSQL, by its own sink.

Usage: python quix_postgres.py BOOTSTRAP TOPIC FORMAT RECORDS TRADES STATE_DIRECTORY DATABASE_URL

FORMAT is `line`, a JSON document a trade, or `burst`, our wire format, whose trades it spreads out by `expand`. As its
documentation has it: its own JSON deserializer, the sink's defaults (it adds the columns that it meets), a commit every 5 s, at
least once. No key, no duplicates looked for, no candles; numbers stay the texts that they are in the record. It tells of trades
when the sink's transaction with them has ended, and stops after so many records.
"""

import sys
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import progress
from quixstreams import Application
from quixstreams.sinks.base import SinkBatch
from quixstreams.sinks.community.postgresql import PostgreSQLSink


class TellingSink(PostgreSQLSink):  # type: ignore[misc]  # a class of a package that isn't here when types are checked
    """The sink, which tells of what it has written."""

    taken: progress.Progress

    def write(self, batch: SinkBatch) -> None:
        """Write a batch and tell of it."""
        super().write(batch)
        self.taken.took(batch.size)


def main(
    bootstrap: str, topic: str, form: str, *, records: int, trades: int, state: str, url: str
) -> None:
    """Read the topic's records and write their trades."""
    parts = urlsplit(url)
    (directory,) = parse_qs(parts.query)["host"]
    sink = TellingSink(
        host=directory,
        port=parts.port or 5432,
        dbname=parts.path.lstrip("/"),
        user=parts.username or "",
        password=unquote(parts.password or ""),
        table_name="quix_trade",
    )
    sink.taken = taken = progress.Progress(trades)
    seen = 0

    def count(*_: object) -> None:
        nonlocal seen
        seen += 1
        if seen == 1:
            taken.tell()
        if seen == records:
            app.stop()

    app = Application(
        broker_address=bootstrap,
        consumer_group=state.rsplit("/", 1)[-1],
        auto_offset_reset="earliest",
        state_dir=state,
        loglevel="WARNING",
        on_message_processed=count,
    )
    stream = app.dataframe(app.topic(topic, key_deserializer="str"))
    if form == "burst":
        stream = stream.filter(is_trades).apply(trades_of, expand=True)
    stream.sink(sink)
    app.run()


def is_trades(record: dict[str, Any]) -> bool:
    """Say whether a record has trades."""
    return bool(record["kind"] == "trades")


def trades_of(record: dict[str, Any]) -> Any:
    """Return the record's trades."""
    return record["trades"]


if __name__ == "__main__":
    main(
        *sys.argv[1:4],
        records=int(sys.argv[4]),
        trades=int(sys.argv[5]),
        state=sys.argv[6],
        url=sys.argv[7],
    )
