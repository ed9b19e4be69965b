"""The hook, the queue and the gate between ccxt and us."""

import asyncio
from typing import Any

import pytest

from vegamite_collector.adapters.ccxt_connection import Pings, decode_frame
from vegamite_collector.adapters.ccxt_feed import Feed, FeedMap, Feeds, Gate
from vegamite_collector.core.profile import ExchangeProfile
from vegamite_collector.ports import Lost, Proved, SourceError, Subscribed, TradesArrived
from vegamite_common.runtime.clock import SystemClock

PROFILE = ExchangeProfile(exchange="x", ids_numeric=True, time_resolution=1000)
CLOCK = SystemClock()


def raw(number: int) -> dict[str, Any]:
    return {
        "id": str(number),
        "timestamp": CLOCK.now() // 1000,
        "price": "1",
        "amount": "1",
        "side": "buy",
    }


def new_feed(gate: Gate | None = None, profile: ExchangeProfile = PROFILE) -> Feed:
    return Feed("A/B", profile=profile, clock=CLOCK, gate=gate or Gate(10_000))


async def drain(feed: Feed) -> list[Any]:
    events = []
    feed.fail(SourceError("end"))
    while True:
        try:
            events.append(await feed.next())
        except SourceError:
            return events


async def test_a_hook_is_found_whatever_the_client_does_to_its_dictionary() -> None:
    hooks = FeedMap(lambda symbol: [symbol])
    hook = hooks["A/B"]
    assert "anything" in hooks
    hooks["A/B"] = "something else"
    del hooks["A/B"]
    assert hooks["A/B"] is hook
    assert hooks.get("A/B", None) is hook


async def test_the_trades_of_a_frame_and_of_frames_that_wait_leave_together_and_proofs_stay_between() -> (
    None
):
    feeds = Feeds(lambda _: new_feed())
    feed = feeds.open("A/B")
    for numbers in ((1, 2), (3,)):
        for number in numbers:
            feeds.note("A/B", raw(number))
        feeds.end_frame()
    feed.prove(17)
    feeds.note("A/B", raw(4))
    feeds.note("C/D", raw(5))
    feeds.end_frame()
    subscribed, first, proved, second = await drain(feed)
    assert isinstance(subscribed, Subscribed), "a trade shows that the subscription is in force"
    assert [trade.trade_id for trade in first.trades] == ["1", "2", "3"]
    assert proved == Proved(17)
    assert [trade.trade_id for trade in second.trades] == ["4"]


async def test_at_most_a_thousand_trades_are_joined() -> None:
    feed = new_feed()
    for number in range(2_500):
        feed.frame.append(raw(number))
        feed.end_frame()
    sizes = [len(event.trades) for event in await drain(feed) if isinstance(event, TradesArrived)]
    assert sizes == [1000, 1000, 500]


async def test_the_gate_closes_at_its_limit_and_opens_when_half_is_taken() -> None:
    gate = Gate(10)
    feed = new_feed(gate)
    feed.frame = [raw(number) for number in range(6)]
    feed.end_frame()
    feed.prove(1)
    feed.frame = [raw(number) for number in range(6)]
    feed.end_frame()
    assert not gate.is_open
    assert isinstance(await feed.next(), Subscribed)
    await feed.next()
    assert not gate.is_open
    await feed.next()
    await feed.next()
    await asyncio.wait_for(gate.wait(), 1)


async def test_a_closed_feed_gives_its_room_back() -> None:
    gate = Gate(5)
    feeds = Feeds(lambda _: new_feed(gate))
    feed = feeds.open("A/B")
    for number in range(9):
        feeds.note("A/B", raw(number))
    feeds.end_frame()
    before = gate.is_open
    feeds.close(feed)
    assert (before, gate.is_open) == (False, True)
    assert feeds.get("A/B") is None


async def test_proofs_and_losses_before_the_subscription_say_nothing() -> None:
    feed = new_feed()
    feed.lose("x", "y")
    feed.acknowledge(5)
    feed.acknowledge(9)
    feed.lose("x", "y")
    assert await drain(feed) == [Subscribed(5), Lost("x", "y")]


async def test_without_an_acknowledgement_a_ping_behind_the_request_stands_in_for_it() -> None:
    feed = new_feed()
    feed.prove(CLOCK.now())
    feed.sent_time = CLOCK.now()
    feed.prove(feed.sent_time - 1)
    feed.prove(feed.sent_time)
    subscribed, proved = await drain(feed)
    assert subscribed.at >= feed.sent_time + CLOCK.span(PROFILE.settling_seconds)
    assert proved == Proved(feed.sent_time)


def test_an_answer_proves_its_own_ping_and_those_before_it() -> None:
    pings = Pings()
    first, second, third = (pings.next_payload(at) for at in (10, 20, 30))
    assert pings.answer(b"unasked") is None
    assert pings.answer(second) == 20
    assert pings.answer(first) is None
    assert pings.answer(third) == 30
    assert pings.answer(None) is None


@pytest.mark.parametrize(
    "literal", ["1234567890.12345678", "0.000000000000000001", "123456789012345678.5", "1e-8"]
)
def test_number_literals_stay_as_they_were_written(literal: str) -> None:
    assert decode_frame(f'{{"p": {literal}, "n": 12345678901234567890, "t": "1.50"}}') == {
        "p": literal,
        "n": 12345678901234567890,
        "t": "1.50",
    }


@pytest.mark.parametrize("frame", ["", "nonsense", '{"a":', b"\xff\xfe", "[1,"])
def test_rubbish_is_a_value_error(frame: str | bytes) -> None:
    with pytest.raises(ValueError):
        decode_frame(frame)
