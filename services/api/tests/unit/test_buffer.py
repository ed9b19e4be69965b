"""What waits for a client: in order, bounded, updates conflated, nothing else ever lost in silence."""

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from vegamite_api.core.buffer import SendBuffer
from vegamite_api.core.seq import Seq
from vegamite_api.core.stream import Event, Stream
from vegamite_common.domain.candle import Candle
from vegamite_common.domain.time import MINUTE, SECOND
from vegamite_common.domain.timeframe import Timeframe

NOON = 1_760_097_600 * SECOND
CANDLES = Stream("candles", "kraken:BTC/USD", "1m")
TRADES = Stream("trades", "kraken:BTC/USD")


def _candle(minute: int) -> Candle:
    open_time = NOON + minute * MINUTE
    one = Decimal(1)
    return Candle(
        timeframe=Timeframe.M1,
        open_time=open_time,
        open=one,
        high=one,
        low=one,
        close=one,
        volume=one,
        quote_volume=one,
        buy_volume=one,
        buy_quote_volume=one,
        trade_count=1,
        first_event_time=open_time,
        first_sequence=1,
        first_trade_id="1",
        last_event_time=open_time,
        last_sequence=1,
        last_trade_id="1",
        epoch=1,
        as_of=1,
        updated_at=open_time,
    )


def _update(offset: int, *minutes: int) -> Event:
    candles = [_candle(minute) for minute in minutes]
    return Event(CANDLES, Seq(1, 0, offset), {"update": offset}, candles=candles, droppable=True)


def _trade(offset: int, size: int = 1) -> Event:
    return Event(TRADES, Seq(1, 0, offset), {"trade": offset, "size": "x" * size})


def _drain(buffer: SendBuffer) -> list[int]:
    offsets = []
    while (item := buffer.pop()) is not None:
        buffer.sent(item[1])
        if item[1].event is not None:
            offsets.append(item[1].event.seq.offset)
    return offsets


def test_a_newer_update_of_the_same_candles_replaces_the_waiting_one() -> None:
    buffer = SendBuffer(1_000_000)
    for event in (
        _update(1, 0),
        _trade(2),
        _update(3, 0),
        _update(4, 1),
        _update(5, 0, 1),
        _update(6, 2),
    ):
        assert buffer.put_live(event)
    assert _drain(buffer) == [2, 5, 6]
    assert buffer.live_bytes == 0
    assert buffer.conflated == 3


def test_an_update_of_more_candles_is_not_replaced_by_one_of_fewer() -> None:
    buffer = SendBuffer(1_000_000)
    for event in (_update(1, 0, 1), _update(2, 1)):
        buffer.put_live(event)
    assert _drain(buffer) == [1, 2]


def test_what_is_over_the_bound_is_refused_and_the_places_sent_are_known() -> None:
    buffer = SendBuffer(250)
    buffer.begin(TRADES, Seq(1, 0, 0))
    assert buffer.put_live(_trade(1, 100))
    assert _drain(buffer) == [1]
    assert buffer.put_live(_trade(2, 100))
    assert not buffer.put_live(_trade(3, 150))
    assert buffer.sent_seqs() == {TRADES.name: "1-0-1"}
    assert buffer.queued_seqs() == {TRADES.name: "1-0-2"}


def test_a_stream_begins_where_its_snapshot_says_once_that_was_sent() -> None:
    buffer = SendBuffer(10**6)
    buffer.put_reply("snapshot", {TRADES: Seq(1, 0, 7)})
    buffer.put_past(_trade(8))
    assert buffer.sent_seqs() == {}
    assert buffer.queued_seqs() == {TRADES.name: "1-0-8"}
    item = buffer.pop()
    assert item is not None
    buffer.sent(item[1])
    assert buffer.sent_seqs() == {TRADES.name: "1-0-7"}
    _drain(buffer)
    assert buffer.sent_seqs() == {TRADES.name: "1-0-8"}


def test_replies_and_the_past_are_outside_the_bound() -> None:
    buffer = SendBuffer(10)
    buffer.put_reply("r" * 1000)
    buffer.put_past(_trade(1, 1000))
    assert buffer.live_bytes == 0
    assert buffer.reply_bytes > 2000
    assert _drain(buffer) == [1]
    assert buffer.reply_bytes == 0


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("update"), st.frozensets(st.integers(0, 3), min_size=1)),
        st.tuples(st.just("trade"), st.just(frozenset())),
        st.tuples(st.just("pop"), st.just(frozenset())),
    ),
    max_size=40,
)


@given(EVENTS)
def test_order_holds_trades_all_come_and_the_newest_state_of_each_candle_comes(
    events: list[tuple[str, frozenset[int]]],
) -> None:
    buffer = SendBuffer(10**9)
    got: list[int] = []
    newest: dict[int, int] = {}
    trades: list[int] = []
    sent: dict[int, frozenset[int]] = {}
    for offset, (kind, minutes) in enumerate(events):
        if kind == "pop":
            item = buffer.pop()
            got += [item[1].event.seq.offset] if item and item[1].event else []
        elif kind == "update":
            buffer.put_live(_update(offset, *minutes))
            sent[offset] = minutes
            newest |= dict.fromkeys(minutes, offset)
        else:
            buffer.put_live(_trade(offset))
            trades.append(offset)
    got += _drain(buffer)
    assert got == sorted(got)
    assert [offset for offset in got if offset not in sent] == trades
    for minute, offset in newest.items():
        last = max(seen for seen in got if minute in sent.get(seen, frozenset()))
        assert last == offset
    assert buffer.live_bytes == 0
