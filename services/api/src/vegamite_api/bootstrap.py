"""Builds the API of settings: the only place that knows which adapters there are."""

import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from vegamite_api.adapters.bus_log import BusLog
from vegamite_api.adapters.postgres_history_store import PostgresHistoryStore
from vegamite_api.adapters.postgres_key_store import PostgresKeyStore
from vegamite_api.adapters.postgres_market_store import PostgresMarketStore
from vegamite_api.adapters.postgres_store import SCHEMA_KNOWN, SCHEMA_MINIMUM, Pool
from vegamite_api.config import ApiSection, ApiSettings
from vegamite_api.core.access import ANONYMOUS
from vegamite_api.core.session import Limits
from vegamite_api.http.app import create_app
from vegamite_api.http.context import Context, Probes
from vegamite_api.http.server import HttpServer, bind
from vegamite_api.service.connection import Services
from vegamite_api.service.hub import Hub
from vegamite_api.service.key_ring import KeyRing, store_admin_key
from vegamite_api.service.lifetime import ApiService
from vegamite_api.service.past import Past
from vegamite_api.service.subscriber import Subscriber
from vegamite_api.service.tail import Tail
from vegamite_common.bus.kafka import KafkaBus
from vegamite_common.bus.port import BusError
from vegamite_common.runtime.health import Health
from vegamite_common.runtime.lifecycle import Resources, StartError
from vegamite_common.runtime.postgres import open_pool, wait_for_schema

STATIC = Path(__file__).parent / "static"


@asynccontextmanager
async def open_service(
    settings: ApiSettings,
    *,
    resources: Resources | None = None,
    listener: socket.socket | None = None,
    probes: Probes | None = None,
    admin_key: str | None = None,
) -> AsyncIterator[ApiService]:
    """Build the API; what isn't given is opened here, and closed at the block's end.

    With `probes` the application answers `/healthz`, `/readyz` and `/metrics` itself. `admin_key` is made a key of this
    instance. Waits for the database and its schema; raises `StartError` where they, the log or the address can't be had.
    """
    section = settings.api
    async with AsyncExitStack() as stack:
        if listener is None:
            # First: a taken port is told at once, not after the database was waited for.
            listener = stack.enter_context(bind(section.host, section.port))
        if resources is None:
            resources = await _open_resources(settings, stack)
        await wait_for_schema(resources.pool, minimum=SCHEMA_MINIMUM, own=SCHEMA_KNOWN)
        key_store = PostgresKeyStore(resources.pool)
        if admin_key is not None:
            await store_admin_key(key_store, admin_key, name="admin.key")
        yield _build(section, resources, listener, probes, KeyRing(key_store))


@asynccontextmanager
async def open_key_store(settings: ApiSettings) -> AsyncIterator[PostgresKeyStore]:
    """Open the keys alone, for the commands that change them; raises `StartError`."""
    pool = await open_pool(settings.postgres, application_name="vegamite-api keys")
    try:
        await wait_for_schema(pool, minimum=SCHEMA_MINIMUM, own=SCHEMA_KNOWN, timeout_seconds=5.0)
        yield PostgresKeyStore(pool)
    finally:
        await pool.close()


@asynccontextmanager
async def open_market_store(settings: ApiSettings) -> AsyncIterator[PostgresMarketStore]:
    """Open the markets alone, waiting for the database and its schema; raises `StartError`."""
    pool = await open_pool(settings.postgres, application_name="vegamite-api track")
    try:
        await wait_for_schema(pool, minimum=SCHEMA_MINIMUM, own=SCHEMA_KNOWN)
        yield PostgresMarketStore(pool)
    finally:
        await pool.close()


def _build(
    section: ApiSection,
    resources: Resources,
    listener: socket.socket,
    probes: Probes | None,
    keys: KeyRing,
) -> ApiService:
    health = Health("api")
    log_port = BusLog(resources.bus)
    history, markets = _stores(resources.pool)
    hub = Hub(
        max_connections=section.max_connections,
        max_connections_per_client=section.max_connections_per_client,
    )
    tail = Tail(
        log_port=log_port,
        store=history,
        health=health,
        memory_bytes=section.memory_bytes,
        on_entry=hub.publish,
        on_break=hub.interrupt,
    )
    past = Past(tail=tail, log_port=log_port)
    services = Services(
        hub=hub,
        subscriber=Subscriber(store=history, markets=markets, past=past),
        keys=keys,
        clock=resources.clock,
        limits=Limits(
            subscriptions=section.max_subscriptions,
            messages_per_second=section.max_messages_per_second,
            message_bytes=section.max_message_bytes,
        ),
        anonymous=ANONYMOUS if section.anonymous_read else None,
        send_buffer_bytes=section.send_buffer_bytes,
        heartbeat_seconds=section.heartbeat_ms / 1000,
    )
    app = create_app(
        Context(
            section=section,
            history=history,
            markets=markets,
            keys=keys,
            clock=resources.clock,
            services=services,
            version=_version(),
            static=STATIC,
            probes=probes,
            metrics=None if probes is None else _metrics,
        )
    )
    server = HttpServer(app, listener, message_bytes=section.max_message_bytes)
    return ApiService(server=server, tail=tail, hub=hub, health=health, drain_ms=section.drain_ms)


def _stores(pool: Pool) -> tuple[PostgresHistoryStore, PostgresMarketStore]:
    return PostgresHistoryStore(pool), PostgresMarketStore(pool)


async def _open_resources(settings: ApiSettings, stack: AsyncExitStack) -> Resources:
    clock = settings.clock.clock()
    pool = await open_pool(settings.postgres, application_name="vegamite-api")
    stack.push_async_callback(pool.close)
    bus = KafkaBus(settings.kafka, clock)
    try:
        await bus.start()
    except BusError as error:
        raise StartError(f"Kafka can't be reached: {error}") from None
    stack.push_async_callback(bus.close)
    return Resources(clock=clock, bus=bus, pool=pool)


def _metrics() -> tuple[bytes, str]:
    return generate_latest(), CONTENT_TYPE_LATEST


def _version() -> str:
    try:
        return version("vegamite-api")
    except PackageNotFoundError:
        return "0"
