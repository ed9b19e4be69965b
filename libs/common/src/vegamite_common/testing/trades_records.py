"""Trades records as hypothesis makes them up, plain ones and others, and what one says that was read in short."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from vegamite_common.domain.market import Market
from vegamite_common.domain.time import SECOND, parse_time
from vegamite_common.domain.trade import Origin, Trade
from vegamite_common.messages.trades import TradesRecord

NOON = parse_time("2024-02-29T12:00:00Z")
MARKET = Market("kraken", "BTC/USD")


plain_ids = st.text("019azAZ-:_. ", min_size=1, max_size=12)
plain_decimals = st.builds(
    lambda digits, decimals: Decimal(digits).scaleb(-decimals),
    st.integers(1, 10**9) | st.integers(1, 10**16 - 1),
    st.integers(0, 6) | st.integers(0, 16),
).filter(lambda number: "E" not in str(number))
any_ids = plain_ids | st.text(min_size=1, max_size=8).filter(lambda text: "\x00" not in text)
any_decimals = plain_decimals | st.builds(
    lambda digits, decimals: Decimal(digits).scaleb(-decimals),
    st.integers(1, 10**28 - 1),
    st.integers(0, 30),
)


def trades(ids: st.SearchStrategy[str], numbers: st.SearchStrategy[Decimal]) -> Any:
    """One to six trades of four seconds, in any order, with ids and numbers of these."""
    return st.lists(
        st.builds(
            Trade,
            ids,
            st.integers(-5, 5) | st.integers(-(2**63), 2**63 - 1),
            st.integers(NOON, NOON + 3) | st.integers(NOON, NOON + 4 * SECOND),
            numbers,
            numbers,
            st.sampled_from(["buy", "sell", None]),
        ),
        min_size=1,
        max_size=6,
    ).map(tuple)


def records(ids: st.SearchStrategy[str], numbers: st.SearchStrategy[Decimal]) -> Any:
    """Records of such trades, with and without a job and coverage."""
    return st.builds(
        TradesRecord,
        exchange=st.just(MARKET.exchange),
        symbol=st.just(MARKET.symbol),
        received_time=st.integers(NOON, NOON + 5 * SECOND),
        origin=st.sampled_from(Origin),
        trades=trades(ids, numbers),
        job=st.none() | st.sampled_from(["a-job", "job 2/3"]),
        covered=st.none() | st.just((NOON, NOON + SECOND)),
    )


def said(record: Any) -> TradesRecord:
    """Return what a record that was read in short says."""
    block = record.trades
    return TradesRecord(
        exchange=record.exchange,
        symbol=record.symbol,
        received_time=record.received_time,
        origin=Origin(record.origin),
        trades=tuple(block.trade(place) for place in range(block.count)),
        job=record.job,
        covered=record.covered,
    )


def spelt(record: TradesRecord) -> list[tuple[str, str]]:
    """Return the numbers of its trades, with all their zeros."""
    return [(str(trade.price), str(trade.amount)) for trade in record.trades]


def record_of(some: Sequence[Trade], **more: Any) -> TradesRecord:
    """Return a record of these trades, with what else it shall say."""
    about: dict[str, Any] = {
        "exchange": MARKET.exchange,
        "symbol": MARKET.symbol,
        "received_time": NOON + 9 * SECOND,
        "origin": Origin.LIVE,
    }
    return TradesRecord(**about | more, trades=tuple(some))
