"""Single exchanges of ccxt, and the list of all, against what ccxt itself says."""

import json
import subprocess
import sys

import pytest

from vegamite_collector.adapters.ccxt_modules import exchange_ids, list_exchanges

TRUTH = """
import json, ccxt.pro, ccxt.async_support
rows = {}
for exchange in ccxt.exchanges:
    plain = getattr(ccxt.async_support, exchange)()
    pro = getattr(ccxt.pro, exchange)() if exchange in ccxt.pro.exchanges else None
    stream = pro is not None and pro.has.get("watchTrades") is True
    rows[exchange] = [plain.name, "stream" if stream else "poll" if plain.has.get("fetchTrades") is True else "none"]
print(json.dumps(rows))
"""

LIGHT = """
import sys
from vegamite_collector.adapters.ccxt_modules import load_exchange_class
from vegamite_collector.ports import UnsupportedExchangeError
assert not any(name.startswith("ccxt") for name in sys.modules)
kraken = load_exchange_class("kraken")()
assert kraken.id == "kraken" and kraken.has["watchTrades"]
assert load_exchange_class("btcmarkets").__module__ == "ccxt.async_support.btcmarkets"
assert load_exchange_class("binanceus").__mro__[1].__name__ == "binance"
loaded = [name for name in sys.modules if name.startswith("ccxt.")]
assert len(loaded) < 60, len(loaded)
assert not any(name.endswith(".okx") for name in loaded)
import ccxt
assert ccxt.NetworkError is sys.modules["ccxt.base.errors"].NetworkError
assert len(ccxt.exchanges) > 100 and ccxt.okx.__name__ == "okx"
for name in ("nowhere", "async_support2"):
    try:
        load_exchange_class(name)
    except UnsupportedExchangeError as error:
        assert name in str(error)
    else:
        raise AssertionError(name)
try:
    ccxt.nonsense
except AttributeError:
    pass
else:
    raise AssertionError
"""


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_list_read_from_the_sources_equals_what_every_exchange_says_of_itself() -> None:
    truth = json.loads(run(TRUTH))
    assert {row.exchange: [row.name, row.trades] for row in list_exchanges()} == truth
    assert exchange_ids() == list(truth)


def test_one_exchange_is_loaded_without_the_others() -> None:
    run(LIGHT)


@pytest.mark.parametrize("exchange", ["binance", "kraken"])
def test_the_default_exchanges_are_streams(exchange: str) -> None:
    assert {row.exchange: row.trades for row in list_exchanges()}[exchange] == "stream"
