"""How the sink is doing, as metrics, readiness and log tell it: one state for the process, the worst of its streams'."""

import structlog

from vegamite_aggregator.metrics import SINK_FAILURES, SINK_STATE
from vegamite_aggregator.ports import SinkError
from vegamite_common.runtime.health import Health

_STATES = ("writing", "starting", "unread", "away", "rejecting", "missing", "refused")
"""From good to bad."""

_WORDS = {
    "unread": "PostgreSQL can't be asked for candles that were revised",
    "away": "InfluxDB doesn't take points",
    "rejecting": "InfluxDB calls every point wrong",
    "missing": "InfluxDB has no such bucket or organisation",
    "refused": "InfluxDB refuses the token",
}
log = structlog.get_logger(__name__)


class Condition:
    """Each stream says what it met; a change is logged once, and told by `health` and the state metric."""

    def __init__(self, health: Health, streams: tuple[str, ...]) -> None:
        self._health = health
        self._states = dict.fromkeys(streams, ("starting", "starting"))
        self._told = ""
        self._tell()

    @property
    def state(self) -> str:
        """The worst state of a stream."""
        return max((state for state, _ in self._states.values()), key=_STATES.index)

    def failed(self, stream: str, error: SinkError) -> None:
        """The stream can't go on."""
        SINK_FAILURES.labels(error.state).inc()
        self._states[stream] = (error.state, f"{_WORDS[error.state]}: {error}")
        self._tell()

    def went_well(self, stream: str) -> None:
        """The stream goes on."""
        if self._states[stream][0] != "writing":
            self._states[stream] = ("writing", "")
            self._tell()

    def _tell(self) -> None:
        state = self.state
        reason = next(why for name, why in self._states.values() if name == state)
        self._health.set_ready(state == "writing", reason)
        for name in _STATES:
            SINK_STATE.labels(name).set(name == state)
        if state == self._told:
            return
        if state in _WORDS:
            log.warning("the sink waits", state=state, reason=reason)
        elif self._told:
            log.info("the sink writes", before=self._told)
        self._told = state
