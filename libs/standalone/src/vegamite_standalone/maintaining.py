"""The timer of `vegamite run`: what a CronJob does for a deployed system."""

from vegamite_aggregator.service.maintenance import Maintenance, maintain_repeatedly
from vegamite_common.runtime.health import Health
from vegamite_common.runtime.lifecycle import Stop

HOUR_SECONDS = 3600.0


class MaintenanceTimer:
    """`Service` that runs the maintenance at the start and every `hours` of the clock, whose `speed` shortens them."""

    name = "maintenance"

    def __init__(self, maintenance: Maintenance, *, hours: float, speed: float) -> None:
        self.health = Health(self.name)
        self._maintenance = maintenance
        self._seconds = hours * HOUR_SECONDS / speed

    async def run(self, stop: Stop) -> None:
        """Maintain until `stop`."""
        await maintain_repeatedly(self._maintenance, stop, seconds=max(1.0, self._seconds))
