"""What the routes need, built once by `bootstrap` and carried by the application."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from starlette.requests import HTTPConnection

from vegamite_api.config import ApiSection
from vegamite_api.core.access import Identity
from vegamite_api.ports import HistoryStore, MarketStore
from vegamite_api.service.connection import Services
from vegamite_api.service.key_ring import KeyRing
from vegamite_common.runtime.clock import Clock
from vegamite_common.runtime.health import State


class Probes(Protocol):
    """What answers the probes where the application serves them itself."""

    def live(self) -> State:
        """Whether the loops moved lately."""
        ...

    def ready(self) -> State:
        """Whether everything can serve."""
        ...


@dataclass(frozen=True, kw_only=True)
class Context:
    """The stores, the keys and the settings; `probes` only where no management server answers them."""

    section: ApiSection
    history: HistoryStore
    markets: MarketStore
    keys: KeyRing
    clock: Clock
    services: Services
    version: str
    static: Path
    probes: Probes | None = None
    metrics: Callable[[], tuple[bytes, str]] | None = None

    @property
    def anonymous(self) -> Identity | None:
        """Who a request without a key is; None where it is nobody."""
        return self.services.anonymous


def context_of(connection: HTTPConnection) -> Context:
    """Return the context of the application that serves this request or connection."""
    context: Context = connection.app.state.context
    return context
