"""Loads single exchanges of ccxt without the hundred others, and lists all of them without loading any.

`import ccxt` runs every exchange's module: some 60 MB and seconds of processor time for one exchange in use. So its
packages are entered into `sys.modules` unexecuted, with a `__getattr__` that loads a name when it is asked for. Where the
process has imported ccxt already, that is used as it is.
"""

import ast
import importlib
import importlib.util
import re
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from vegamite_collector.ports import ExchangeRow, UnsupportedExchangeError

_PACKAGES = ("ccxt", "ccxt.async_support", "ccxt.pro")
_EXCHANGE_BASES = {
    "ccxt": "ccxt.base.exchange",
    "ccxt.async_support": "ccxt.async_support.base.exchange",
}
_LOCK = threading.Lock()


def load_exchange_class(exchange: str) -> type[Any]:
    """Return ccxt's class of an exchange id, the streaming one where there is one; raise `UnsupportedExchangeError` for another id."""
    with _LOCK:
        if "ccxt" not in sys.modules:
            _enter_packages()
        for package in ("ccxt.pro", "ccxt.async_support"):
            try:
                module = importlib.import_module(f"{package}.{exchange}")
            except ModuleNotFoundError as error:
                if error.name != f"{package}.{exchange}":
                    raise
                continue
            found = getattr(module, exchange, None)
            if isinstance(found, type):
                return found
    raise UnsupportedExchangeError(f"{exchange}: ccxt knows no such exchange")


def _enter_packages() -> None:
    parent: ModuleType | None = None
    for name in _PACKAGES:
        spec = importlib.util.find_spec(name)
        assert spec is not None, "ccxt is a dependency"
        module = importlib.util.module_from_spec(spec)
        module.__dict__["__getattr__"] = _late_names(name)
        sys.modules[name] = module
        if parent is None:
            parent = module
        else:
            setattr(parent, name.rpartition(".")[2], module)


def _late_names(package: str) -> Any:
    def load(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name == "exchanges":
            return exchange_ids()
        errors = importlib.import_module("ccxt.base.errors")
        if hasattr(errors, name):
            return getattr(errors, name)
        if package in _EXCHANGE_BASES:
            base = importlib.import_module(_EXCHANGE_BASES[package])
            if hasattr(base, name):
                return getattr(base, name)
        try:
            return getattr(importlib.import_module(f"{package}.{name}"), name)
        except ModuleNotFoundError:
            raise AttributeError(f"module {package!r} has no attribute {name!r}") from None

    return load


def _root() -> Path:
    spec = importlib.util.find_spec("ccxt")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def exchange_ids() -> list[str]:
    """Return the ids of all exchanges that ccxt knows, read from its source."""
    tree = ast.parse((_root() / "__init__.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(
            isinstance(t, ast.Name) and t.id == "exchanges" for t in node.targets
        ):
            return list(ast.literal_eval(node.value))
    raise RuntimeError("ccxt's list of exchanges is not where it was")


_NAME = re.compile(r"^ +'name': '((?:[^'\\]|\\.)*)',", re.MULTILINE)
_CLASS = re.compile(r"^class (\w+)\(([\w.]+)", re.MULTILINE)
_STREAM = re.compile(r"^ +'watchTrades': (True|False|None)", re.MULTILINE)
_POLL = re.compile(r"^ +'fetchTrades': (True|False|None)", re.MULTILINE)


def list_exchanges() -> list[ExchangeRow]:
    """Return a row for each exchange that ccxt knows, read from its sources; takes about a second of a thread."""
    root = _root()
    texts: dict[Path, str] = {}

    def text_of(path: Path) -> str:
        if path not in texts:
            # The description is at the head of each class; the rest is a megabyte of methods.
            texts[path] = path.read_text(encoding="utf-8")[:120_000] if path.exists() else ""
        return texts[path]

    def lookup(pattern: re.Pattern[str], folder: str, exchange: str) -> str | None:
        seen: set[str] = set()
        while exchange not in seen:
            seen.add(exchange)
            text = text_of(root / folder / f"{exchange}.py")
            if found := pattern.search(text):
                return found[1]
            declared = _CLASS.search(text)
            if declared is None:
                return None
            exchange = declared[2].rpartition(".")[2]
        return None

    rows = []
    for exchange in exchange_ids():
        trades: Literal["stream", "poll", "none"] = "none"
        if lookup(_STREAM, "pro", exchange) == "True":
            trades = "stream"
        elif lookup(_POLL, "async_support", exchange) == "True":
            trades = "poll"
        rows.append(
            ExchangeRow(exchange, lookup(_NAME, "async_support", exchange) or exchange, trades)
        )
    return rows
