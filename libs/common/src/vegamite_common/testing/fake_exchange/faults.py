"""What can go wrong on the fake exchange, as switches that tests turn while it runs."""

from typing import Annotated, Any, Literal

import msgspec

Count = Annotated[int, msgspec.Meta(ge=0)]
Seconds = Annotated[float, msgspec.Meta(ge=0)]

RUBBISH = (
    "",
    "not json",
    '{"e":"aggTrade","s":',
    "null",
    "[]",
    "[1,2]",
    '"text"',
    "42",
    '{"e":"aggTrade"}',
    '{"e":"aggTrade","s":"NOSUCHMARKET","a":1,"p":"1","q":"1","f":1,"l":1,"T":1,"m":true}',
    '{"e":42,"id":{},"result":[]}',
    '{"stream":"x@aggTrade","data":null}',
    b"\xff\xfe\x00\x01",
    b"",
)
"""Frames that are no trade of any market, as a broken gateway might send them."""


class RestFailure(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The next `count` REST requests are answered with `status`; `retry_after` in whole seconds, as a header."""

    status: Literal[403, 418, 429, 500, 502, 503]
    count: Count
    retry_after: Count | None = None


class Faults(msgspec.Struct, forbid_unknown_fields=True):
    """The switches, all off at first; change an attribute and it holds from the next frame or request on.

    Lags and delays are real seconds (a simulated clock scales the lags itself).
    """

    silent: bool = False
    """Sockets stay open, but get no trades, acks, pings or pongs; what happens meanwhile is lost to them."""
    stalled: bool = False
    """Sockets get nothing until it ends, and then everything, in order: nothing is lost."""
    duplicate: bool = False
    """Every trade frame is sent twice."""
    repeat_last: Count = 0
    """After each subscribe, this many trades from before it are sent first."""
    reorder: Count = 0
    """Trades are gathered in groups of this size (or for half a second) and sent shuffled."""
    lose: Count = 0
    """So many of the next trades aren't streamed; counts down. REST has them."""
    stream_lag: Seconds = 0.0
    """Trades are streamed so much later than they happen; pongs aren't late."""
    rest_lag: Seconds = 0.0
    """REST knows only trades that are at least so old."""
    rest_delay: Seconds = 0.0
    """REST answers so much later than asked."""
    rest_failure: RestFailure | None = None

    def take_rest_failure(self) -> RestFailure | None:
        """Return what the request at hand has to fail with, if anything, and count it down."""
        failure = self.rest_failure
        if failure is None or not failure.count:
            return None
        self.rest_failure = RestFailure(failure.status, failure.count - 1, failure.retry_after)
        return failure

    def take_loss(self) -> bool:
        """Return whether the trade at hand is lost to the stream, and count it down."""
        if not self.lose:
            return False
        self.lose -= 1
        return True

    def change(self, changes: dict[str, Any]) -> None:
        """Set the named switches, all or none; raise `msgspec.ValidationError` for an unknown one or a wrong value."""
        wanted = msgspec.convert({**msgspec.to_builtins(self), **changes}, Faults)
        for name in self.__struct_fields__:
            setattr(self, name, getattr(wanted, name))
