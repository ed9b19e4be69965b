"""The topics that Strimzi makes are those that the aggregator asks for, where it doesn't make them itself."""

from collections.abc import Callable

import pytest

from vegamite_aggregator.migrate import topic_specs
from vegamite_common.bus.port import TopicSpec
from vegamite_common.runtime.section import TopicsSection
from vegamite_common.testing.charts.manifest import Manifest

Build = Callable[[str], tuple[Manifest, ...]]

ENVIRONMENTS = ("dev", "staging", "prod")


def _topics(manifests: tuple[Manifest, ...]) -> list[Manifest]:
    return [each for each in manifests if each["kind"] == "KafkaTopic"]


def _brokers(manifests: tuple[Manifest, ...]) -> int:
    return sum(
        each["spec"]["replicas"]
        for each in manifests
        if each["kind"] == "KafkaNodePool" and "broker" in each["spec"]["roles"]
    )


def _spec_of(topic: Manifest) -> TopicSpec:
    """The port's words for a KafkaTopic."""
    return TopicSpec(
        topic=topic["metadata"]["name"],
        partitions=topic["spec"]["partitions"],
        replication=topic["spec"]["replicas"],
        retention_ms=topic["spec"]["config"]["retention.ms"],
    )


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_topics_are_as_the_defaults_ask_for_them(build: Build, environment: str) -> None:
    topics = _topics(build(f"overlays/{environment}"))
    replicas = {topic["spec"]["replicas"] for topic in topics}
    (replication,) = replicas

    wanted = topic_specs(TopicsSection(replication_factor=replication))
    assert {spec.topic: spec for spec in map(_spec_of, topics)} == {
        spec.topic: spec for spec in wanted
    }


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_a_topic_is_in_the_cluster_and_survives_the_loss_of_a_broker_where_it_may(
    build: Build, environment: str
) -> None:
    manifests = build(f"overlays/{environment}")
    (kafka,) = (each for each in manifests if each["kind"] == "Kafka")
    brokers = _brokers(manifests)

    for topic in _topics(manifests):
        assert topic["metadata"]["labels"]["strimzi.io/cluster"] == kafka["metadata"]["name"]
        assert topic["spec"]["replicas"] == brokers
        assert topic["spec"]["config"]["min.insync.replicas"] == max(1, brokers - 1)
    settings = kafka["spec"]["kafka"]["config"]
    assert settings["offsets.topic.replication.factor"] == brokers
    assert settings["auto.create.topics.enable"] is False
