import asyncio

from vegamite_aggregator.service.inbox import RECORD_OVERHEAD, Inbox
from vegamite_common.bus.port import Fetched, Message


def fetched(first: int, count: int, *, size: int = 100, end: int | None = None) -> Fetched:
    messages = [Message(0, first + n, 1, None, b"x" * size) for n in range(count)]
    return Fetched(0, messages, first + count if end is None else end, 5)


def offsets(messages: list[Message]) -> list[int]:
    return [message.offset for message in messages]


def test_records_come_out_in_order_and_in_portions() -> None:
    inbox = Inbox(max_bytes=10_000)
    assert inbox.put(fetched(0, 3))
    assert inbox.put(fetched(3, 4))
    assert offsets(inbox.take(max_records=5, max_bytes=10_000)) == [0, 1, 2, 3, 4]
    assert offsets(inbox.take(max_records=5, max_bytes=10_000)) == [5, 6]
    assert inbox.take(max_records=5, max_bytes=10_000) == []


def test_a_portion_is_bounded_by_bytes_but_never_empty() -> None:
    inbox = Inbox(max_bytes=100_000)
    inbox.put(fetched(0, 3, size=1000))
    assert offsets(inbox.take(max_records=9, max_bytes=10)) == [0]
    assert offsets(inbox.take(max_records=9, max_bytes=2 * (1000 + RECORD_OVERHEAD))) == [1, 2]


def test_a_full_inbox_takes_nothing_more_until_it_is_cleared() -> None:
    inbox = Inbox(max_bytes=1000)
    assert inbox.put(fetched(0, 10))
    assert not inbox.put(fetched(10, 1, end=99))
    assert inbox.overflowed
    assert inbox.end_offset == 99, "where the log ends is known all the same"
    assert len(inbox.take(max_records=100, max_bytes=10_000)) == 10
    assert not inbox.put(fetched(11, 1)), "what was left out has to be fetched first"
    inbox.clear()
    assert inbox.put(fetched(10, 2))
    assert offsets(inbox.take(max_records=9, max_bytes=10_000)) == [10, 11]


def test_what_is_put_back_comes_next_and_counts_as_before() -> None:
    inbox = Inbox(max_bytes=1000)
    inbox.put(fetched(0, 4))
    taken = inbox.take(max_records=9, max_bytes=10_000)
    inbox.put_back(taken[2:])
    assert len(inbox) == 2
    assert offsets(inbox.take(max_records=1, max_bytes=10_000)) == [2]
    assert inbox.put(fetched(4, 4)), "there is room again"
    assert not inbox.put(fetched(8, 1)), "and then there is none"
    assert offsets(inbox.take(max_records=9, max_bytes=10_000)) == [3, 4, 5, 6, 7]
    inbox.put_back([])
    assert not inbox


async def test_what_is_put_back_is_not_waited_for() -> None:
    inbox = Inbox(max_bytes=1000)
    inbox.put(fetched(0, 2))
    taken = inbox.take(max_records=9, max_bytes=10_000)
    waiting = asyncio.create_task(inbox.wait(60))
    await asyncio.sleep(0)
    inbox.put_back(taken[1:])
    await asyncio.wait_for(waiting, 5)


def test_a_look_at_the_end_needs_no_room() -> None:
    inbox = Inbox(max_bytes=1000)
    inbox.put(fetched(0, 10))
    assert inbox.put(fetched(10, 0, end=10))
    assert not inbox.overflowed


async def test_waiting_ends_with_a_record_with_a_wake_up_and_with_the_time() -> None:
    inbox = Inbox(max_bytes=1000)
    for happen in (lambda: inbox.put(fetched(0, 1)), inbox.wake):
        waiting = asyncio.create_task(inbox.wait(60))
        await asyncio.sleep(0)
        assert not waiting.done()
        happen()
        await asyncio.wait_for(waiting, 5)
        inbox.take(max_records=9, max_bytes=9999)
    await asyncio.wait_for(inbox.wait(0.01), 5)
