"""What a connection may do, and what a subscription lets through."""

from decimal import Decimal

import msgspec
import pytest

from vegamite_api.core.access import ANONYMOUS
from vegamite_api.core.refusal import RefusedError
from vegamite_api.core.seq import Seq
from vegamite_api.core.session import Limits, Session, Subscription, Wildcard
from vegamite_api.core.stream import Event, Stream, candles_event
from vegamite_common.domain.candle import Candle
from vegamite_common.domain.time import MINUTE, SECOND
from vegamite_common.domain.timeframe import Timeframe
from vegamite_common.messages.candles import CandlesRecord

NOON = 1_760_097_600 * SECOND
STREAM = Stream("candles", "kraken:BTC/USD", "1m")


def _candle(minute: int, as_of: int, *, final: bool = False, revision: int = 0) -> Candle:
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
        as_of=as_of,
        updated_at=open_time,
        final=final,
        revision=revision,
    )


def _event(offset: int, kind: str, *candles: Candle) -> Event:
    record = CandlesRecord(
        exchange="kraken",
        symbol="BTC/USD",
        type=kind,  # type: ignore[arg-type]
        candles=candles,
        reason="late_trade" if kind == "revision" else None,
    )
    return candles_event(record, "1m", Seq(1, 0, offset), None)


def _held(*candles: Candle, next_offset: int = 10) -> Subscription:
    subscription = Subscription(STREAM, from_offset=0)
    subscription.hold(candles, epoch=1, next_offset=next_offset)
    return subscription


def test_a_message_loses_the_states_that_were_shown_and_keeps_the_others() -> None:
    subscription = _held(_candle(0, 5, final=True), _candle(1, 7))
    admitted = subscription.admit(_event(1, "update", _candle(0, 5), _candle(1, 8)))
    assert admitted is not None
    assert [candle.as_of for candle in admitted.candles] == [8]
    assert len(msgspec.json.decode(admitted.text)["data"]) == 1
    assert subscription.admit(_event(2, "update", _candle(1, 7))) is None


def test_a_final_of_the_same_offset_is_newer_than_the_state_in_progress() -> None:
    subscription = _held(_candle(0, 5))
    assert subscription.admit(_event(1, "final", _candle(0, 5, final=True))) is not None


def test_once_the_chain_is_passed_on_an_emptied_message_keeps_it_whole() -> None:
    subscription = _held(_candle(0, 5, final=True))
    assert subscription.admit(_event(1, "final", _candle(0, 5, final=True))) is None
    # An older candle, beyond the snapshot: nothing is known of it, so it passes.
    assert subscription.admit(_event(2, "revision", _candle(-9, 4, final=True, revision=1)))
    emptied = subscription.admit(_event(3, "final", _candle(0, 5, final=True)))
    assert emptied is not None
    assert msgspec.json.decode(emptied.text)["data"] == []


def test_the_shown_states_are_forgotten_when_the_log_is_past_them() -> None:
    subscription = _held(_candle(0, 5, final=True), next_offset=6)
    assert subscription.admit(_event(1, "final", _candle(1, 6, final=True)))
    assert subscription.admit(_event(2, "final", _candle(0, 5, final=True))) is not None


def test_records_before_the_place_are_not_passed_on() -> None:
    subscription = Subscription(STREAM, from_offset=4)
    assert subscription.admit(_event(3, "update", _candle(0, 1))) is None
    assert subscription.admit(_event(4, "update", _candle(0, 1))) is not None


def test_messages_draw_on_a_bucket_that_refills() -> None:
    session = Session(limits=Limits(messages_per_second=2, message_burst=3), identity=ANONYMOUS)
    assert [session.allow_message(10.0) for _ in range(4)] == [True, True, True, False]
    assert session.allow_message(10.5)
    assert not session.allow_message(10.5)
    assert [session.allow_message(100.0) for _ in range(4)] == [True, True, True, False]


def test_without_identity_nothing_is_allowed() -> None:
    with pytest.raises(RefusedError) as refused:
        Session(limits=Limits(), identity=None).require_identity()
    assert refused.value.code == "auth_required"


def test_whole_exchanges_bring_their_streams_within_the_quota_but_not_those_left_out() -> None:
    session = Session(limits=Limits(subscriptions=3), identity=ANONYMOUS)
    wildcard = Wildcard("candles", "kraken", "1m")
    session.add_wildcard(wildcard)
    other = Stream("candles", "kraken:ETH/USD", "1m")
    assert session.adopts(STREAM)
    assert not session.adopts(Stream("candles", "kraken:BTC/USD", "5m"))
    assert not session.adopts(Stream("trades", "kraken:BTC/USD"))
    assert not session.adopts(Stream("candles", "kraken2:BTC/USD", "1m"))
    session.add(Subscription(STREAM, from_offset=0))
    assert session.remove(STREAM)
    assert not session.adopts(STREAM)
    session.add(Subscription(STREAM, from_offset=0))
    session.add(Subscription(other, from_offset=0))
    assert not session.adopts(Stream("candles", "kraken:XRP/USD", "1m"))
    with pytest.raises(RefusedError):
        session.check_quota([Stream("candles", "kraken:XRP/USD", "1m")])
    session.check_quota([other])
    assert set(session.remove_wildcard(wildcard)) == {STREAM, other}
    assert session.streams == ()
