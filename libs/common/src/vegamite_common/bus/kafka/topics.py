"""Making topics as they have to be, and checking that they are."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka.admin import NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import NoError, TopicAlreadyExistsError, for_code

from vegamite_common.bus.kafka.connection import KafkaConnection
from vegamite_common.bus.port import BusError, TopicSpec

_SEEN_SECONDS = 0.05
_REQUIRED = {"message.timestamp.type": "LogAppendTime", "cleanup.policy": "delete"}


async def count_partitions(connection: KafkaConnection) -> dict[str, int]:
    """Return how many partitions each topic of the cluster has. Asking for all creates none."""
    async with connection.admin() as admin:
        topics = await admin.describe_topics(None)
    return {
        topic["topic"]: len(topic["partitions"]) for topic in topics if topic["error_code"] == 0
    }


async def create_topics(connection: KafkaConnection, specs: Sequence[TopicSpec]) -> None:
    """Make the topics that don't exist yet; one that does is left as it is. Raises `BusError`."""
    minimum = connection.section.topics.min_insync_replicas
    fresh = [
        NewTopic(
            name=spec.topic,
            num_partitions=spec.partitions,
            replication_factor=spec.replication,
            topic_configs={
                **_REQUIRED,
                "retention.ms": str(spec.retention_ms),
                "min.insync.replicas": str(min(minimum, spec.replication)),
            },
        )
        for spec in specs
    ]
    async with connection.admin() as admin:
        response = await admin.create_topics(fresh)
    for name, code, *message in response.topic_errors:
        error = for_code(code)
        if error not in (NoError, TopicAlreadyExistsError):
            said = f": {message[0]}" if message and message[0] else ""
            raise BusError(f"topic {name} can't be made: {error.__name__}{said}")
    await _wait_until_seen(connection, {spec.topic for spec in specs})


async def _wait_until_seen(connection: KafkaConnection, topics: set[str]) -> None:
    """Brokers hear of a new topic a little after it was made."""
    try:
        async with asyncio.timeout(connection.request_seconds):
            while True:
                if topics <= set(await count_partitions(connection)):
                    return
                await asyncio.sleep(_SEEN_SECONDS)
    except TimeoutError:
        raise BusError(f"topics {', '.join(sorted(topics))} were made and are not seen") from None


async def check_topics(connection: KafkaConnection, specs: Sequence[TopicSpec]) -> None:
    """Raise `BusError`, naming every topic and setting that isn't as it has to be."""
    counts = await count_partitions(connection)
    present = [spec for spec in specs if spec.topic in counts]
    problems = [f"topic {spec.topic} does not exist" for spec in specs if spec.topic not in counts]
    settings = await _settings(connection, [spec.topic for spec in present]) if present else {}
    for spec in present:
        problems += _differences(spec, counts[spec.topic], settings[spec.topic])
    if problems:
        raise BusError("; ".join(problems))


def _differences(spec: TopicSpec, partitions: int, settings: Mapping[str, str]) -> list[str]:
    found = []
    if partitions != spec.partitions:
        found.append(
            f"topic {spec.topic}: partitions is {partitions}, {spec.partitions} are needed"
        )
    for name, needed in _REQUIRED.items():
        if settings.get(name) != needed:
            found.append(f"topic {spec.topic}: {name} is {settings.get(name)}, {needed} is needed")
    retention = int(settings.get("retention.ms", "-1"))
    if 0 <= retention < spec.retention_ms:
        found.append(
            f"topic {spec.topic}: retention.ms is {retention}, at least {spec.retention_ms} is needed"
        )
    return found


async def _settings(
    connection: KafkaConnection, topics: Sequence[str]
) -> dict[str, dict[str, str]]:
    wanted = dict.fromkeys([*_REQUIRED, "retention.ms"], "")
    resources = [ConfigResource(ConfigResourceType.TOPIC, topic, wanted) for topic in topics]
    async with connection.admin() as admin:
        responses: Sequence[Any] = await admin.describe_configs(resources)
    settings: dict[str, dict[str, str]] = {}
    for response in responses:
        for code, message, _kind, name, entries in response.resources:
            if for_code(code) is not NoError:
                raise BusError(f"topic {name} can't be described: {message}")
            settings[name] = {entry[0]: entry[1] for entry in entries}
    return settings
