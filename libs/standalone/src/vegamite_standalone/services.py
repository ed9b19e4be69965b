"""The three services of this process, each built by its own bootstrap over what they share."""

import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from vegamite_common.runtime.health import Health, JointHealth, State
from vegamite_common.runtime.lifecycle import Service
from vegamite_standalone.local_system import LocalSystem
from vegamite_standalone.settings import ProcessSettings


@asynccontextmanager
async def open_services(
    settings: ProcessSettings, *, system: LocalSystem, listener: socket.socket, admin_key: str
) -> AsyncIterator[list[Service]]:
    """Build collector, aggregator, API and the maintenance's timer; the API serves on `listener` and answers the probes for all three."""
    # Imported here: the collector's and the API's libraries take a while, and a refusal needs none of them.
    from vegamite_aggregator.bootstrap import open_maintenance
    from vegamite_aggregator.bootstrap import open_service as open_aggregator
    from vegamite_api.bootstrap import open_service as open_api
    from vegamite_collector.bootstrap import open_service as open_collector
    from vegamite_standalone.maintaining import MaintenanceTimer

    database = {"postgres": system.postgres}
    resources = system.resources
    async with AsyncExitStack() as stack:
        aggregator = await stack.enter_async_context(
            open_aggregator(settings.aggregator.model_copy(update=database), resources=resources)
        )
        collector = await stack.enter_async_context(
            open_collector(settings.collector.model_copy(update=database), resources=resources)
        )
        # One address answers for all: alive and ready where each of the three is.
        probes = LateHealth([aggregator.health, collector.health])
        api = await stack.enter_async_context(
            open_api(
                settings.api.model_copy(update=database),
                resources=resources,
                listener=listener,
                probes=probes,
                admin_key=admin_key,
            )
        )
        probes.add(api.health)
        services: list[Service] = [aggregator, collector, api]
        hours = settings.standalone.standalone.maintenance_hours
        if hours:
            maintenance = await stack.enter_async_context(
                open_maintenance(settings.aggregator, resources=resources)
            )
            speed = resources.clock.speed
            services.append(MaintenanceTimer(maintenance, hours=hours, speed=speed))
        yield services


class LateHealth:
    """The health of several services, one of which is built with this."""

    def __init__(self, parts: list[Health]) -> None:
        """Begin with the services that are there."""
        self._parts = parts
        self._joint = JointHealth(parts)

    def add(self, part: Health) -> None:
        """Ask one more service from now on."""
        self._parts = [*self._parts, part]
        self._joint = JointHealth(self._parts)

    def live(self) -> State:
        """Whether each loop moved lately."""
        return self._joint.live()

    def ready(self) -> State:
        """Whether each service can serve."""
        return self._joint.ready()
