"""Three Kafka brokers for tests, each a process that can be killed, stopped and started again; two of them are enough to go on."""

import os
import signal
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from vegamite_common.testing.services.kafka import KafkaServer, new_cluster_id
from vegamite_common.testing.services.process import free_ports

BROKERS = 3

_SETTINGS: Mapping[str, str] = {
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,CLIENT:PLAINTEXT",
    "default.replication.factor": str(BROKERS),
    "min.insync.replicas": "2",
    "offsets.topic.replication.factor": str(BROKERS),
    "transaction.state.log.replication.factor": str(BROKERS),
    "transaction.state.log.min.isr": "2",
    "share.coordinator.state.topic.replication.factor": str(BROKERS),
    "share.coordinator.state.topic.min.isr": "2",
    # A broker that came back leads again before long.
    "auto.leader.rebalance.enable": "true",
    "leader.imbalance.check.interval.seconds": "5",
    "group.min.session.timeout.ms": "1000",
    "replica.lag.time.max.ms": "5000",
}


class KafkaCluster:
    """Three brokers and controllers: replication 3, `min.insync.replicas` 2; logs in folders of their own, removed by `close`.

    `client_addresses` are what clients on the second listener are told to connect to, one a broker: a test that stands
    between gives those of its own. Blocking: call the methods through `asyncio.to_thread` in a coroutine.
    """

    def __init__(
        self,
        settings: Mapping[str, str] | None = None,
        *,
        client_addresses: Sequence[str] | None = None,
    ) -> None:
        """Choose folders and ports; `settings` are further lines of each server.properties."""
        self.brokers: list[KafkaServer] = []
        ports = free_ports(3 * BROKERS)
        cluster_id = new_cluster_id()
        voters = ",".join(
            f"{number + 1}@127.0.0.1:{ports[BROKERS + number]}" for number in range(BROKERS)
        )
        self.client_ports = ports[2 * BROKERS :]
        for number in range(BROKERS):
            own, controller, client = ports[number::BROKERS]
            told = client_addresses[number] if client_addresses else f"127.0.0.1:{client}"
            broker = KafkaServer(
                {
                    **_SETTINGS,
                    "node.id": str(number + 1),
                    "controller.quorum.voters": voters,
                    "listeners": (
                        f"PLAINTEXT://127.0.0.1:{own},CONTROLLER://127.0.0.1:{controller},"
                        f"CLIENT://127.0.0.1:{client}"
                    ),
                    "advertised.listeners": f"PLAINTEXT://127.0.0.1:{own},CLIENT://{told}",
                    **(settings or {}),
                },
                cluster_id=cluster_id,
            )
            broker.port = own
            self.brokers.append(broker)
        self._stopped: set[int] = set()

    @property
    def bootstrap(self) -> str:
        """The addresses to give to clients that nothing shall stand in the way of."""
        return ",".join(broker.bootstrap for broker in self.brokers)

    def start(self) -> None:
        """Start every broker that doesn't run, all at once, and return when they answer."""
        with ThreadPoolExecutor(BROKERS) as pool:
            # A broker answers only once there is a quorum, so none may wait for another.
            list(pool.map(KafkaServer.start, self.brokers))

    def kill(self, number: int) -> None:
        """End one broker by SIGKILL."""
        self._stopped.discard(number)
        self.brokers[number].kill()

    def restart(self, number: int) -> None:
        """Start a broker again that was killed, on its log, and return when it answers."""
        self.brokers[number].start()

    def suspend(self, number: int) -> None:
        """Stop a broker as it stands (SIGSTOP): its connections stay, and nothing comes."""
        self._stopped.add(number)
        _signal(self.brokers[number], signal.SIGSTOP)

    def resume(self, number: int) -> None:
        """Let a suspended broker go on."""
        if number in self._stopped:
            self._stopped.discard(number)
            _signal(self.brokers[number], signal.SIGCONT)

    def close(self) -> None:
        """End all brokers and remove their folders."""
        for broker in self.brokers:
            broker.close()

    def __enter__(self) -> "KafkaCluster":
        """Start it."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()


def _signal(broker: KafkaServer, number: signal.Signals) -> None:
    os.kill(broker.pid, number)
