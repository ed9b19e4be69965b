"""`poll_events`: the pages of an exchange without a stream, as the events that a stream would give."""

from collections.abc import AsyncGenerator, Awaitable, Callable

from vegamite_collector.core.polling import LatestPages
from vegamite_collector.core.profile import ExchangeProfile
from vegamite_collector.core.repair import Page
from vegamite_collector.ports import Lost, Proved, SourceEvent, Subscribed, TradesArrived
from vegamite_common.runtime.clock import Clock


async def poll_events(
    fetch_latest: Callable[[], Awaitable[Page]], *, profile: ExchangeProfile, clock: Clock
) -> AsyncGenerator[SourceEvent, None]:
    """Ask for the latest trades for ever; a page proves what was made before it was asked for, where it meets the last one."""
    pages = LatestPages(profile.time_resolution)
    subscribed = False
    while True:
        page = await fetch_latest()
        polled = pages.take(page.trades, sent=page.sent)
        if not subscribed:
            # What the first page has is from before; what comes after its question will be in the next.
            subscribed = True
            yield Subscribed(page.asked_time)
        if polled.trades:
            yield TradesArrived(clock.now(), polled.trades)
        if page.quarantined:
            yield Lost("quarantine", f"{page.quarantined} trades that can't be believed")
        elif polled.meets:
            yield Proved(page.asked_time)
        else:
            yield Lost("polled_too_slowly", "more trades than one page holds")
        await clock.sleep(pages.wait_seconds)
