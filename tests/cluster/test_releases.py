"""Three releases of the three charts in one namespace, with Kafka (SASL over TLS), PostgreSQL (TLS) and InfluxDB from outside."""

import json
import secrets
import string
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from vegamite_common.testing.certificate import make_certificate
from vegamite_common.testing.cluster import Cluster, ClusterError, Namespace
from vegamite_common.testing.eventually import eventually

Tell = Callable[[str], None]

HERE = Path(__file__).parent
INFLUXDB = HERE.parents[1] / "k8s/components/influxdb"
VERSION = (HERE.parents[1] / "VERSION").read_text().strip()
CONFIG = ("--config", "/etc/vegamite/vegamite.toml")
WAIT = ("--wait", "--timeout", "200s")
SERVICES = ("aggregator", "collector", "api")
DEMO = "sim:DEMO/USD"

# Runs in a pod beside the api: a client that calls all the time and writes down what it was answered.
CALLER = """
import sys, time, urllib.request
while True:
    try:
        with urllib.request.urlopen("http://api:8000/v1/candles/latest?market=sim:DEMO/USD&timeframe=1m", timeout=10) as answer:
            print(answer.status, answer.read().decode(), flush=True)
    except Exception as error:
        print("failed", error, flush=True)
    time.sleep(0.1)
"""

# Asks InfluxDB from the sink's own pod, with its token.
ASK = """
import pathlib, sys, urllib.request
token = pathlib.Path("/etc/vegamite/secrets/influxdb/token").read_text().strip()
told = {"Authorization": f"Token {token}", "Content-Type": "application/vnd.flux", "Accept": "application/csv"}
asked = urllib.request.Request(f"{sys.argv[1]}/api/v2/query?org=vegamite", data=sys.argv[2].encode(), headers=told)
with urllib.request.urlopen(asked, timeout=20) as answer:
    print(answer.read().decode())
"""

# What the pod says of itself.
READY = """
import urllib.error, urllib.request
try:
    print(urllib.request.urlopen("http://127.0.0.1:8001/readyz", timeout=5).status)
except urllib.error.HTTPError as error:
    print(error.code, error.read().decode())
"""

ARCHIVE = """
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: vegamite-archive}
spec:
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: 1Gi}}
"""


class Outside:
    """The servers that a platform has already, in a namespace of their own, and who may log in to them."""

    def __init__(self, namespace: Namespace, folder: Path) -> None:
        self.namespace = namespace
        names = [f"{server}.{namespace.name}.svc" for server in ("kafka", "postgres")]
        self.certificate = make_certificate(folder, names=names)
        self.passwords = {name: secrets.token_urlsafe(16) for name in ("kafka", "owner", *SERVICES)}
        self.token = secrets.token_hex(16)

    def start(self) -> None:
        """Start all, and make a login for each service; the owner of the schema is the database's own."""
        authority, key = self.certificate.certificate.read_text(), self.certificate.key.read_text()
        space = self.namespace
        space.add_secret(
            "kafka-tls", {"both.pem": self.certificate.both.read_text(), "ca.crt": authority}
        )
        space.add_secret("postgres-tls", {"tls.crt": authority, "tls.key": key})
        space.add_secret("kafka-login", {"password": self.passwords["kafka"]})
        space.add_secret("postgres-login", {"password": self.passwords["owner"]})
        space.add_secret(
            "influxdb-admin", {"password": secrets.token_urlsafe(16), "token": self.token}
        )
        manifests = string.Template((HERE / "outside.yaml").read_text())
        space.apply(manifests.substitute(namespace=space.name))
        for name in ("service", "statefulset"):
            space.apply((INFLUXDB / f"{name}.yaml").read_text())
        for server in ("kafka", "postgres", "influxdb"):
            space.kubectl("rollout", "status", f"statefulset/{server}", "--timeout=120s")
        for service in SERVICES:
            self.query(f"CREATE ROLE vegamite_{service}")
            password = self.passwords[service]
            self.query(
                f"CREATE ROLE {service} LOGIN PASSWORD '{password}' IN ROLE vegamite_{service}"
            )

    def query(self, statement: str) -> str:
        """Run a statement as the owner; gives what psql prints."""
        psql = ("psql", "-qtA", "-v", "ON_ERROR_STOP=1", "-U", "owner", "-d", "vegamite")
        return self.namespace.kubectl("exec", "postgres-0", "--", *psql, "-c", statement).strip()

    @property
    def influxdb(self) -> str:
        """Where InfluxDB is."""
        return f"http://influxdb.{self.namespace.name}.svc:8086"

    def values(self, service: str) -> dict[str, Any]:
        """The values of a service's release: how it reaches the servers, and the secrets that it names."""
        values: dict[str, Any] = {
            "kafka": {
                "bootstrapServers": f"kafka.{self.namespace.name}.svc:9093",
                "securityProtocol": "SASL_SSL",
                "sasl": {"username": "vegamite", "existingSecret": "vegamite-kafka"},
                "tls": {"existingSecret": "authority"},
            },
            "postgres": {
                "host": f"postgres.{self.namespace.name}.svc",
                "username": service,
                "existingSecret": f"vegamite-{service}",
                "tls": {"existingSecret": "authority"},
            },
        }
        if service == "aggregator":
            owner = {"username": "owner", "existingSecret": "vegamite-owner"}
            values["migration"] = {"postgres": owner, "backoffLimit": 0}
            # The schedule is the cluster's affair; the test has its run when all there is to do is there.
            archive = {"existingClaim": "vegamite-archive"}
            values["maintenance"] = {"suspend": True, "archive": archive}
            values["config"] = {"aggregator": {"retention": {"trades_days": 1}}}
            values["sink"] = {
                "enabled": True,
                "url": self.influxdb,
                "existingSecret": "vegamite-influxdb",
                "readRevised": True,
            }
        if service == "collector":
            values["config"] = {"collector": {"demo": {"enabled": True}}}
        if service == "api":
            values["config"] = {"api": {"anonymous_read": True}}
        return values


class Releases:
    """The three releases and their secrets, in one namespace."""

    def __init__(self, namespace: Namespace, outside: Outside, charts: Path, folder: Path) -> None:
        self.namespace = namespace
        self.outside = outside
        self._charts = charts
        self._folder = folder
        namespace.add_secret("authority", {"ca.crt": outside.certificate.certificate.read_text()})
        for name, password in outside.passwords.items():
            namespace.add_secret(f"vegamite-{name}", {"password": password})
        namespace.add_secret("vegamite-influxdb", {"token": outside.token})
        namespace.apply(ARCHIVE)

    def helm(self, *arguments: str, fails: bool = False) -> str:
        """Run Helm, which has to succeed (or fail); gives what it said."""
        done = self.namespace.helm(*arguments)
        said = f"{done.stdout}{done.stderr}"
        assert (done.returncode != 0) is fails, f"{said}\n{self.namespace.describe_troubles()}"
        return said

    def chart(self, service: str, **changes: Any) -> list[str]:
        """The arguments that name a service's chart and its values, `changes` over them."""
        values = self.outside.values(service)
        for key, value in changes.items():
            merged = {**values.get(key, {}), **value} if isinstance(value, dict) else value
            values[key] = merged
        file = self._folder / f"{service}.json"
        file.write_text(json.dumps(values))
        return [str(self._charts / service), "--values", str(file)]

    def uids(self) -> dict[str, set[str]]:
        """The uids of each service's pods."""
        return {
            service: self.namespace.pod_uids(f"app.kubernetes.io/component={service}")
            for service in SERVICES
        }

    def answers(self) -> list[str]:
        """What the calling pod was answered so far, a line an answer."""
        return self.namespace.kubectl("logs", "caller", "--tail=-1").splitlines()

    def in_the_sink(self, script: str, *arguments: str) -> str:
        """What a script prints in the sink's pod."""
        sink = ("exec", "deploy/aggregator-sink", "--", "python", "-c")
        return self.namespace.kubectl(*sink, script, *arguments)

    async def moving(self) -> None:
        """Wait until the newest candle, as the calling pod sees it, has changed."""
        seen = len(self.answers())

        def changed() -> bool:
            fresh = [line for line in self.answers()[seen:] if line.startswith("200")]
            return len({line for line in fresh if '"open_time"' in line}) > 1

        await eventually(changed, timeout_s=60, interval_s=0.5)


@contextmanager
def _namespaces(cluster: Cluster) -> Iterator[tuple[Namespace, Namespace]]:
    with cluster.namespace("outside") as outside, cluster.namespace("vegamite") as own:
        yield outside, own


def _caller() -> str:
    context = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    container = {
        "name": "caller",
        "image": f"vegamite/api:{VERSION}",
        "command": ["python", "-c", CALLER],
        "securityContext": context,
    }
    spec = {
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "terminationGracePeriodSeconds": 1,
    }
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "caller"}, "spec": spec}
    return json.dumps(pod)


def _reaches(namespace: Namespace, workload: str, host: str, port: int) -> bool:
    """Whether a pod gets a connection; refused ones time out or are refused, as the network does it."""
    script = f"import socket; socket.create_connection(({host!r}, {port}), 3).close()"
    try:
        namespace.kubectl("exec", workload, "--", "python", "-c", script)
    except ClusterError:
        return False
    return True


@pytest.mark.timeout(1200)
async def test_each_service_is_installed_upgraded_and_rolled_back_alone(
    cluster: Cluster, charts: Path, tell: Tell, tmp_path: Path
) -> None:
    with _namespaces(cluster) as (servers, namespace):
        outside = Outside(servers, tmp_path)
        outside.start()
        tell("Kafka with SASL over TLS, PostgreSQL with TLS and InfluxDB are up, outside")
        releases = Releases(namespace, outside, charts, tmp_path)
        for service in SERVICES:
            releases.helm("install", service, *releases.chart(service), *WAIT)
        tell(namespace.kubectl("get", "pods", "-o", "wide"))
        encrypted = outside.query(
            "SELECT string_agg(DISTINCT usename || ' ' || ssl, ', ' ORDER BY usename || ' ' || ssl)"
            " FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)"
            " WHERE usename IN ('aggregator', 'api', 'collector')"
        )
        assert encrypted == "aggregator true, api true, collector true"

        tracked = namespace.kubectl(
            "exec",
            "deploy/api",
            "--",
            "vegamite-api",
            "track",
            DEMO,
            "--history-hours",
            "50",  # some hours of the day before yesterday, which then expire
            *CONFIG,
        )
        assert "tracked from now on" in tracked
        namespace.apply(_caller())
        namespace.kubectl("wait", "--for=condition=Ready", "pod/caller", "--timeout=60s")
        await releases.moving()
        tell("the demo market moves, as a pod beside the api sees it")

        await _upgrade_the_api_alone(releases, tell)
        _go_over_to_a_scaler(releases, tell)
        await _fail_a_migration(releases, tell)
        _miss_a_secret_of_the_migration(releases, tell)
        await _miss_a_secret(releases, tell)
        _look_at_the_network(releases, tell)
        await _keep_a_copy_in_influxdb(releases, tell)
        await _maintain(releases, tell)
        for service in SERVICES:
            tell(releases.helm("test", service, "--timeout", "120s"))
            releases.helm("uninstall", service, *WAIT)
        namespace.kubectl("delete", "pod", "caller")
        await eventually(lambda: not namespace.objects("pods"), timeout_s=60, interval_s=1)


async def _upgrade_the_api_alone(releases: Releases, tell: Tell) -> None:
    before = releases.uids()
    seen = len(releases.answers())
    changed = releases.chart("api", config={"api": {"anonymous_read": True, "heartbeat_ms": 4000}})
    releases.helm("upgrade", "api", *changed, *WAIT)
    upgraded = releases.uids()
    releases.helm("rollback", "api", "1", *WAIT)
    back = releases.uids()
    for service in ("collector", "aggregator"):
        assert before[service] == upgraded[service] == back[service], service
    assert before["api"].isdisjoint(upgraded["api"])
    assert upgraded["api"].isdisjoint(back["api"])
    answers = releases.answers()[seen:]
    failed = [line for line in answers if not line.startswith("200")]
    tell(
        f"the api alone was upgraded and rolled back; pods by uid: {before} {upgraded} {back};"
        f" {len(answers)} calls meanwhile, {len(failed)} failed"
    )
    assert failed == []


def _go_over_to_a_scaler(releases: Releases, tell: Tell) -> None:
    releases.helm("upgrade", "api", *releases.chart("api", replicas=2), *WAIT)
    before = releases.uids()["api"]
    assert len(before) == 2
    scaler = {"type": "hpa", "minReplicas": 2, "maxReplicas": 3}
    for _ in range(2):
        releases.helm("upgrade", "api", *releases.chart("api", autoscaling=scaler), *WAIT)
        assert releases.uids()["api"] == before, releases.namespace.describe_troubles()
    tell("the api went over to a scaler, and was upgraded under it: both pods stayed")


def _miss_a_secret_of_the_migration(releases: Releases, tell: Tell) -> None:
    before = releases.uids()
    owner = {"postgres": {"username": "owner", "existingSecret": "nowhere"}}
    values = releases.chart("aggregator", migration=owner)
    said = releases.helm("upgrade", "aggregator", *values, *WAIT, fails=True)
    assert "Secret nowhere (key password)" in said, said
    assert releases.uids() == before
    tell(f"a migration without its secret is refused at once: {said.strip().splitlines()[-2:]}")


async def _fail_a_migration(releases: Releases, tell: Tell) -> None:
    before = releases.uids()
    # A topic can't change its number of partitions: the migration says so, and nothing else may happen.
    kafka = {**releases.outside.values("aggregator")["kafka"], "topics": {"partitions": 13}}
    said = releases.helm(
        "upgrade", "aggregator", *releases.chart("aggregator", kafka=kafka), *WAIT, fails=True
    )
    log = releases.namespace.kubectl("logs", "job/aggregator-migration")
    assert "market.trades.v1" in log, log
    assert releases.uids() == before
    await releases.moving()
    tell(f"a failed migration stopped the upgrade: {said.strip()}\n  its log: {log.strip()}")
    releases.helm("upgrade", "aggregator", *releases.chart("aggregator"), *WAIT)
    tell("the next upgrade, with what is right, went well")


async def _miss_a_secret(releases: Releases, tell: Tell) -> None:
    postgres = {**releases.outside.values("api")["postgres"], "existingSecret": "not-there"}
    notes = releases.helm("install", "poor", *releases.chart("api", postgres=postgres))
    assert "not-there" in notes

    def events() -> list[str]:
        return [
            event["message"]
            for event in releases.namespace.objects("events")
            if event["reason"] == "FailedMount" and "not-there" in event["message"]
        ]

    (event, *_) = await eventually(events, timeout_s=60, interval_s=0.5)
    tell(f"a missing secret: the event says {event!r}; the notes say\n{notes}")
    releases.helm("uninstall", "poor", *WAIT)


def _look_at_the_network(releases: Releases, tell: Tell) -> None:
    own, kafka = releases.namespace, f"kafka.{releases.outside.namespace.name}.svc"
    assert _reaches(own, "deploy/api", kafka, 9093)
    assert _reaches(own, "pod/caller", "api", 8000)
    address = own.objects("pods", "app.kubernetes.io/component=collector")[0]["status"]["podIP"]
    assert not _reaches(own, "pod/caller", address, 8001), (
        "a stranger reads the collector's figures"
    )
    tell("the network lets through what is named, and nothing else")


def _same_trades(releases: Releases) -> int:
    """The number of trades up to the last full minute, which has to be the same in PostgreSQL and in InfluxDB."""
    minute = releases.outside.query(
        "SELECT to_char(date_trunc('minute', max(event_time)) AT TIME ZONE 'UTC',"
        ' \'YYYY-MM-DD"T"HH24:MI:SS"Z"\') FROM trade'
    )
    stored = releases.outside.query(f"SELECT count(*) FROM trade WHERE event_time < '{minute}'")
    question = (
        f'from(bucket: "vegamite") |> range(start: 2020-01-01T00:00:00Z, stop: {minute})'
        ' |> filter(fn: (r) => r._measurement == "trade" and r._field == "price"'
        f" and r._time < {minute}) |> group() |> count()"
    )
    answer = releases.in_the_sink(ASK, releases.outside.influxdb, question)
    # The column of the result's name is empty where an annotation above gives it.
    rows = [line for line in answer.splitlines() if line.startswith((",,0,", ",_result,0,"))]
    copied = [row.split(",")[-1] for row in rows]
    assert copied == [stored], f"up to {minute}: {copied} in InfluxDB, {stored} in PostgreSQL"
    return int(stored)


async def _keep_a_copy_in_influxdb(releases: Releases, tell: Tell) -> None:
    space, outside = releases.namespace, releases.outside.namespace
    trades = await eventually(lambda: _same_trades(releases), timeout_s=240, interval_s=2)
    assert trades > 1000
    tell(f"the sink's copy in InfluxDB has {trades} trades, as PostgreSQL has")

    before = releases.uids()
    outside.kubectl("scale", "statefulset/influxdb", "--replicas=0")

    def waits() -> str:
        (pod,) = space.objects("pods", "app.kubernetes.io/component=sink")
        assert not pod["status"]["containerStatuses"][0]["ready"]
        said = releases.in_the_sink(READY)
        assert "InfluxDB doesn't take points" in said, said
        return said

    said = await eventually(waits, timeout_s=120, interval_s=1)
    await releases.moving()
    assert releases.uids() == before
    space.kubectl("rollout", "status", "deployment/aggregator", "--timeout=10s")
    tell(f"without InfluxDB the sink says {said.strip()}; candles move, the aggregator is ready")
    outside.kubectl("scale", "statefulset/influxdb", "--replicas=1")
    outside.kubectl("rollout", "status", "statefulset/influxdb", "--timeout=120s")
    space.kubectl("rollout", "status", "deployment/aggregator-sink", "--timeout=120s")
    (pod,) = space.objects("pods", "app.kubernetes.io/component=sink")
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 0
    trades = await eventually(lambda: _same_trades(releases), timeout_s=120, interval_s=2)
    tell(f"InfluxDB is back, and has {trades} trades, as PostgreSQL has")


async def _maintain(releases: Releases, tell: Tell) -> None:
    space, outside = releases.namespace, releases.outside
    cutoff = outside.query(
        "SELECT date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' - interval '1 day'"
    )
    expiring = f"SELECT count(*) FROM trade WHERE event_time < '{cutoff}'"

    def history_is_there() -> int:
        assert outside.query("SELECT count(*) FROM gap WHERE state = 'open'") == "0"
        assert outside.query("SELECT count(*) FROM job WHERE state = 'open'") == "0"
        trades = int(outside.query(expiring))
        assert trades > 0
        return trades

    trades = await eventually(history_is_there, timeout_s=180, interval_s=1)
    run = ("job", "maintenance-now", "--from=cronjob/aggregator-maintenance")
    space.kubectl("create", *run)
    space.kubectl("wait", "--for=condition=Complete", "job/maintenance-now", "--timeout=120s")
    log = space.kubectl("logs", "job/maintenance-now")
    archived = outside.query("SELECT archived_trades, completed_time IS NOT NULL FROM maintenance")
    tell(f"a run of the CronJob, with {trades} trades that expire:\n{log}  {archived}")
    assert archived == f"{trades}|t"
    assert outside.query(expiring) == "0"
