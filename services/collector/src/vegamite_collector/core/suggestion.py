"""What the user may have meant by a symbol that the exchange doesn't list."""

import difflib
from collections.abc import Collection


def suggest_symbols(symbol: str, known: Collection[str], *, limit: int = 5) -> tuple[str, ...]:
    """Return up to `limit` of the `known` symbols that look like `symbol`: the same base first, then the closest spelling."""
    wanted = symbol.upper()
    base = wanted.partition("/")[0]
    close = difflib.get_close_matches(wanted, known, n=limit, cutoff=0.6)
    same_base = sorted(name for name in known if name.partition("/")[0] == base and ":" not in name)
    closest_of_base = difflib.get_close_matches(wanted, same_base, n=limit, cutoff=0.0)
    merged = dict.fromkeys([*close[:1], *closest_of_base, *close])
    return tuple(merged)[:limit]
