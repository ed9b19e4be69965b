"""What tests of `k8s/` look at: each kustomization as the real kubectl builds it, and a real broker made from one."""

import asyncio
import functools
import secrets
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.protocol.admin import CreateAclsRequest
from pydantic import SecretStr

from vegamite_common.runtime.section import KafkaSection
from vegamite_common.testing.charts.manifest import Manifest, read_manifests
from vegamite_common.testing.services.kafka import KafkaServer
from vegamite_common.testing.services.kubernetes_tools import KubernetesTools, find_kubernetes_tools

K8S = Path(__file__).resolve().parents[2] / "k8s"

Build = Callable[[str], tuple[Manifest, ...]]

# Kafka's numbers for what a KafkaUser writes in words.
_RESOURCES = {"topic": 2, "group": 3, "cluster": 4}
_PATTERNS = {"literal": 3, "prefix": 4}
_OPERATIONS = {
    "Read": 3,
    "Write": 4,
    "Create": 5,
    "Describe": 8,
    "DescribeConfigs": 10,
    "IdempotentWrite": 12,
}
_ALLOW = 3
_LOGIN = "org.apache.kafka.common.security.plain.PlainLoginModule required"


@pytest.fixture(scope="session")
def k8s() -> Path:
    """The folder of the kustomizations."""
    return K8S


@pytest.fixture(scope="session")
def tools() -> KubernetesTools:
    """The real programs."""
    return find_kubernetes_tools()


@pytest.fixture(scope="session")
def build(tools: KubernetesTools) -> Build:
    """Build one kustomization, named by its folder under `k8s/`."""

    @functools.cache
    def built(folder: str) -> tuple[Manifest, ...]:
        done = subprocess.run(
            [str(tools.kubectl), "kustomize", str(K8S / folder)],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == "", "kustomize warns"
        return read_manifests(done.stdout)

    return built


@dataclass(frozen=True)
class SecuredLog:
    """A broker that lets nobody do what no ACL allows, with the topics and users of an environment."""

    broker: KafkaServer
    passwords: dict[str, str]

    def section(self, user: str) -> KafkaSection:
        """How this user reaches it."""
        return KafkaSection.model_validate(
            {
                "bootstrap_servers": self.broker.bootstrap,
                "security_protocol": "SASL_PLAINTEXT",
                "sasl_mechanism": "PLAIN",
                "sasl_username": user,
                "sasl_password": SecretStr(self.passwords[user]),
            }
        )


@pytest.fixture(scope="session")
def secured_log(build: Build) -> Iterator[SecuredLog]:
    """What Strimzi makes of the overlay dev, as far as rights and topics go, on a broker from packages."""
    manifests = build("overlays/dev")
    users = [each for each in manifests if each["kind"] == "KafkaUser"]
    names = ["broker", *(each["metadata"]["name"] for each in users)]
    passwords = {name: secrets.token_hex(8) for name in names}
    logins = " ".join(f'user_{name}="{password}"' for name, password in passwords.items())
    settings = {
        "listener.security.protocol.map": "PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
        "sasl.enabled.mechanisms": "PLAIN",
        "sasl.mechanism.inter.broker.protocol": "PLAIN",
        "listener.name.plaintext.plain.sasl.jaas.config": (
            f'{_LOGIN} username="broker" password="{passwords["broker"]}" {logins};'
        ),
        # What Strimzi sets for `authorization: {type: simple}`; the controller's own listener has no names.
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:broker;User:ANONYMOUS",
        "early.start.listeners": "CONTROLLER",
    }
    with KafkaServer(settings) as broker:
        log = SecuredLog(broker, passwords)
        asyncio.run(_prepare(log, manifests))
        yield log


async def _prepare(log: SecuredLog, manifests: tuple[Manifest, ...]) -> None:
    """Make the topics and give the rights, as the operators do."""
    section = log.section("broker")
    admin = AIOKafkaAdminClient(
        bootstrap_servers=section.bootstrap_servers,
        security_protocol=section.security_protocol,
        sasl_mechanism=section.sasl_mechanism,
        sasl_plain_username="broker",
        sasl_plain_password=log.passwords["broker"],
    )
    await admin.start()
    try:
        topics = [_new_topic(each) for each in manifests if each["kind"] == "KafkaTopic"]
        made = await admin.create_topics(topics)
        assert [error[1] for error in made.topic_errors] == [0] * len(topics)
        for user in (each for each in manifests if each["kind"] == "KafkaUser"):
            for right in _rights(user):
                # The public client makes no ACLs.
                node = admin._client.get_random_node()
                answer = await admin._client.send(node, CreateAclsRequest(*right))
                assert [error for error, _ in answer.creation_responses] == [0]
    finally:
        await admin.close()


def _new_topic(topic: Manifest) -> NewTopic:
    spec = topic["spec"]
    settings = {key: str(value) for key, value in spec["config"].items()}
    return NewTopic(
        topic["metadata"]["name"], spec["partitions"], spec["replicas"], topic_configs=settings
    )


def _rights(user: Manifest) -> Iterator[tuple[int, str, int, str, str, int, int]]:
    """Each ACL of a KafkaUser as the request has it."""
    principal = f"User:{user['metadata']['name']}"
    for rule in user["spec"]["authorization"]["acls"]:
        resource = rule["resource"]
        name = resource.get("name", "kafka-cluster")
        pattern = _PATTERNS[resource.get("patternType", "literal")]
        for operation in rule["operations"]:
            code = _OPERATIONS[operation]
            yield _RESOURCES[resource["type"]], name, pattern, principal, "*", code, _ALLOW
