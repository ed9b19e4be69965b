"""A fake exchange on loopback that speaks Binance's spot protocol, for tests and for developers to play with.

`FakeExchange([GeneratedFeed("BTC/USDT", seed=1)])` is an async context manager; `python -m` this package starts one.
"""

from vegamite_common.testing.fake_exchange.control import ControlServer
from vegamite_common.testing.fake_exchange.faults import RUBBISH, Faults, RestFailure
from vegamite_common.testing.fake_exchange.feed import AggregateTrade, Feed, Listing
from vegamite_common.testing.fake_exchange.generator import GeneratedFeed
from vegamite_common.testing.fake_exchange.recording import RecordedFeed
from vegamite_common.testing.fake_exchange.server import FakeExchange, RestRequest

__all__ = [
    "RUBBISH",
    "AggregateTrade",
    "ControlServer",
    "FakeExchange",
    "Faults",
    "Feed",
    "GeneratedFeed",
    "Listing",
    "RecordedFeed",
    "RestFailure",
    "RestRequest",
]
