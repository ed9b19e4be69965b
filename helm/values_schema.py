"""Writes each chart's values.schema.json: what the charts share is said once here, for a schema can't refer to another chart's.

Run by `make schemas`; with `--check` it writes nothing, and fails where a file isn't what would be written.
"""

import json
import sys
from pathlib import Path

from schema_aggregator import maintenance, sink
from schema_connections import kafka, login, postgres
from schema_words import (
    DURATION,
    NAME,
    QUANTITY,
    Schema,
    array,
    choice,
    closed,
    flag,
    key,
    needing,
    objects,
    resources,
    secret,
    strings,
    table,
    text,
    whole,
)

CHARTS = Path(__file__).parent
SHARED_SECTIONS = ("log", "clock", "kafka", "postgres")


# --- what the charts share --------------------------------------------------------------------------


def image(repository: str) -> Schema:
    """Which image a pod runs."""
    return closed(
        f"The image, {repository} unless said otherwise",
        registry=text("Host (and path) before the repository; else global.imageRegistry", r"^\S+$"),
        repository=text("Name of the image"),
        tag=text("Tag; the chart's appVersion where empty", r"^[\w][\w.-]{0,127}$"),
        digest=text("sha256:…, which wins over the tag", r"^sha256:[0-9a-f]{64}$"),
        pullPolicy=choice("When it is pulled", "Always", "IfNotPresent", "Never"),
    )


def library() -> Schema:
    """What Helm adds for a chart of templates: the release's global values."""
    return closed("Nothing to set: the library of templates", **{"global": table("As above")})


def config(*sections: str) -> Schema:
    """Sections of vegamite.toml that a service reads; the keys in them are checked when it starts."""
    return closed(
        "Sections of vegamite.toml, laid over what the chart writes; no secrets",
        **{name: table(f"The section [{name}]") for name in (*SHARED_SECTIONS, *sections)},
    )


def probe(what: str) -> Schema:
    """The numbers of one probe."""
    return closed(
        f"Numbers of the {what} probe",
        initialDelaySeconds=whole("Seconds before the first one", 0),
        periodSeconds=whole("Seconds between two", 1),
        timeoutSeconds=whole("Seconds that an answer may take", 1),
        failureThreshold=whole("How many in a row fail before it counts", 1),
    )


def autoscaling(*, keda: bool) -> Schema:
    """Who says how many pods run."""
    behavior = table("How fast, as HorizontalPodAutoscaler has it")
    properties = {
        "type": choice(
            "none: replicas does; hpa: by CPU; keda: by lag, for the aggregator alone",
            "none", "hpa", "keda",
        ),
        "minReplicas": whole("Least pods", 1),
        "maxReplicas": whole("Most pods; never more than there are partitions", 1),
        "hpa": closed(
            "Numbers of hpa",
            cpuUtilization=whole("Percent of the CPU requested", 1, 1000),
            behavior=behavior,
        ),
    }  # fmt: skip
    if keda:
        properties["keda"] = closed(
            "Numbers of keda",
            lagThreshold=text("Records that one pod may be behind: a string", r"^[1-9][0-9]*$"),
            pollingInterval=whole("Seconds between two looks", 1),
            kafkaVersion=text(
                "Version of the protocol that the scaler speaks", r"^[0-9]+(\.[0-9]+){2}$"
            ),
            behavior=behavior,
            fallback=table("What runs while Kafka can't be asked, as ScaledObject has it"),
        )
    return closed("Who says how many pods run", **properties)


def monitor(kind: str) -> Schema:
    """A scrape configuration of the Prometheus operator."""
    return closed(
        f"A {kind} of the Prometheus operator, where the cluster knows the kind",
        enabled=flag("Whether there is one"),
        labels=strings("Labels by which Prometheus finds it"),
        interval=text("Between two scrapes", DURATION),
        scrapeTimeout=text("Limit of one scrape", DURATION),
        relabelings=objects("As the operator has it"),
        metricRelabelings=objects("As the operator has it"),
    )


def network_policy(service: str) -> Schema:
    """Who may speak with a service, and with whom it may."""
    peers = "peers as NetworkPolicy has them"
    ports = array("Ports", whole("A port", 1, 65535))
    properties = {
        "enabled": flag("Whether there are policies: all that isn't named is refused then"),
        "dns": closed(
            "Name servers",
            ports=ports,
            to=objects(f"Where they are: {peers}; anywhere where empty"),
        ),
        "kafka": closed(
            "Kafka",
            to=objects(f"Where it is: {peers}; anywhere where empty"),
            ports=array("Ports besides those of bootstrapServers", whole("A port", 1, 65535)),
        ),
        "postgres": closed(
            "PostgreSQL",
            to=objects(f"Where it is: {peers}; anywhere where empty"),
            ports=array("Ports besides that of postgres.port", whole("A port", 1, 65535)),
        ),
        "management": closed(
            "/metrics and the probes", **{"from": objects(f"Who may see them: {peers}")}
        ),
        "extraIngress": objects("More rules, as NetworkPolicy has them"),
        "extraEgress": objects("More rules, as NetworkPolicy has them"),
    }
    if service == "api":
        properties["http"] = closed(
            "The api itself",
            **{"from": objects(f"Who may call it: {peers}; everybody where empty")},
        )
    if service == "aggregator":
        properties["influxdb"] = closed(
            "InfluxDB, for the sink alone",
            to=objects(f"Where it is: {peers}; anywhere where empty"),
            ports=array("Ports besides that of sink.url", whole("A port", 1, 65535)),
        )
    if service == "collector":
        properties["exchanges"] = closed(
            "Exchanges",
            enabled=flag("Whether they are allowed by this rule"),
            ports=ports,
            to=objects(f"Where they are: {peers}"),
        )
    return closed("Who may speak with the service, and with whom it may", **properties)


def security() -> dict[str, Schema]:
    """What the pods may be; nothing that the `restricted` Pod Security level would refuse."""
    user = whole("A user or group; not root", 1)
    only = {"type": "boolean"}
    return {
        "podSecurityContext": closed(
            "Of the pods, as Kubernetes has it",
            runAsNonRoot={**only, "description": "They never run as root", "const": True},
            runAsUser=user,
            runAsGroup=user,
            fsGroup=user,
            fsGroupChangePolicy=choice("When a volume's owner is set", "OnRootMismatch", "Always"),
            supplementalGroups=array("More groups", user),
            seccompProfile=closed(
                "Which system calls they may make",
                type=choice(
                    "The runtime's own list, or one on the node", "RuntimeDefault", "Localhost"
                ),
                localhostProfile=text("The list on the node"),
            ),
            seLinuxOptions=table("As Kubernetes has it"),
            appArmorProfile=table("As Kubernetes has it"),
        ),
        "securityContext": closed(
            "Of the containers, as Kubernetes has it",
            allowPrivilegeEscalation={
                **only,
                "description": "They never gain rights",
                "const": False,
            },
            readOnlyRootFilesystem={
                **only,
                "description": "They write to /tmp alone",
                "const": True,
            },
            capabilities=closed(
                "They have none",
                drop={"description": "All of them", "type": "array", "const": ["ALL"]},
            ),
        ),
    }


def strategy() -> Schema:
    """How a rollout goes."""
    count = {"type": ["integer", "string"]}
    return closed(
        "How a rollout goes, as Deployment has it",
        type=choice("How: one pod after the other", "RollingUpdate"),
        rollingUpdate=closed("Numbers of RollingUpdate", maxSurge=count, maxUnavailable=count),
    )


def service_properties(service: str) -> dict[str, Schema]:
    """What all three services' charts have."""
    test_properties = {
        "enabled": flag("Whether there is a test"),
        "waitSeconds": whole("Seconds that it waits for the service to be as it should", 0),
        "deadlineSeconds": whole("Seconds after which it has failed", 1),
        "resources": resources(),
    }
    if service == "api":
        test_properties["market"] = text("Market whose candles and stream are looked at")
        test_properties["apiKey"] = closed(
            "A key for reading", existingSecret=secret("it"), key=key("it")
        )
    return {
        "global": table("What the charts of one release share; the chart vegamite describes it"),
        "vegamite-common": library(),
        "enabled": flag("Whether there is anything of it; the umbrella chart's condition"),
        "replicas": whole("How many pods, where autoscaling.type is none", 0),
        "fullnameOverride": text("Name of everything, in place of <release>-<chart>", NAME),
        "image": image(f"vegamite/{service}"),
        "imagePullSecrets": array("Names of Secrets to pull with", {"type": "string"}),
        "kafka": kafka(),
        "postgres": postgres(),
        "resources": resources(),
        "tmpSize": text("Size of /tmp, the only place that can be written to", QUANTITY),
        "env": table(
            'Environment of the service, NAME: "value"', {"type": "string"}, r"^[A-Za-z_][A-Za-z0-9_]*$"
        ),
        "extraEnv": objects("Environment as Kubernetes has it"),
        "extraEnvFrom": objects("Environment from ConfigMaps and Secrets, as Kubernetes has it"),
        "extraVolumes": objects("Volumes, as Kubernetes has them"),
        "extraVolumeMounts": objects("Where they appear, as Kubernetes has it"),
        "probes": closed(
            "Numbers of the probes",
            startup=probe("startup"), liveness=probe("liveness"), readiness=probe("readiness"),
        ),
        "strategy": strategy(),
        "minReadySeconds": whole("Seconds that a new pod is ready before the next is changed", 0),
        "progressDeadlineSeconds": whole("Seconds after which a rollout has failed", 1),
        "revisionHistoryLimit": whole("Old replica sets that are kept", 0),
        "terminationGracePeriodSeconds": whole("Seconds that a pod may take to end; the chart's sum where 0", 0),
        "lifecycle": table("Hooks of the container, in place of the chart's own"),
        "annotations": strings("Annotations of the Deployment"),
        "podAnnotations": strings("Annotations of the pods"),
        "podLabels": strings("Labels of the pods, besides those that select them"),
        "priorityClassName": text("Priority class of the pods"),
        "nodeSelector": strings("Labels of the nodes that it may run on"),
        "tolerations": objects("Taints that it tolerates"),
        "affinity": table("Affinity, as Kubernetes has it"),
        "topologySpreadConstraints": objects("In place of spreading over zones and nodes"),
        "serviceAccount": closed(
            "The account of the pods, without a token",
            create=flag("Whether the chart makes it"),
            name=text("Its name; the chart's where empty", NAME),
            annotations=strings("Its annotations"),
        ),
        **security(),
        "autoscaling": autoscaling(keda=service == "aggregator"),
        "pdb": closed(
            "A budget for evictions, where more than one pod runs",
            enabled=flag("Whether there is one"),
            maxUnavailable={
                "description": "Pods that may be missing, as a number or a share",
                "type": ["integer", "string"],
                "minimum": 1,
                "pattern": r"^[1-9][0-9]?%$",
            },
        ),
        "networkPolicy": network_policy(service),
        "serviceMonitor": monitor("ServiceMonitor"),
        "podMonitor": monitor("PodMonitor"),
        "tests": closed("helm test", **test_properties),
    }  # fmt: skip


# --- the charts -------------------------------------------------------------------------------------


def collector() -> Schema:
    """Values of helm/collector."""
    account = closed(
        "Which keys of which Secret",
        existingSecret=secret("the account's keys"),
        apiKeyKey=key("the account's key"),
        apiSecretKey=key("its secret"),
        apiPasswordKey=key("its password or passphrase"),
    )
    account = needing(account, "existingSecret") | {"minProperties": 2}
    return closed(
        "Values of the collector's chart",
        **service_properties("collector"),
        config=config("collector", "exchanges"),
        exchangeSecrets=table("Accounts at exchanges, by ccxt id", account, r"^[a-z0-9]+$"),
    )


def aggregator() -> Schema:
    """Values of helm/aggregator."""
    return closed(
        "Values of the aggregator's chart",
        **service_properties("aggregator"),
        config=config("aggregator", "influxdb"),
        migration=closed(
            "What brings topics and schema to this version's, before each installation and upgrade",
            enabled=flag("Whether the chart does it"),
            postgres=closed("Another user than the service's", **login()),
            backoffLimit=whole("How often a failed one is tried again", 0, 20),
            deadlineSeconds=whole("Seconds for all tries together", 1),
            resources=resources(),
        ),
        maintenance=maintenance(),
        sink=sink(),
    )


def api() -> Schema:
    """Values of helm/api."""
    host = {"type": "string", "pattern": r"^(\*\.)?[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"}
    duration = text("As HTTPRoute has it; 0s is no limit", DURATION)
    return closed(
        "Values of the api's chart",
        **service_properties("api"),
        config=config("api"),
        allowedHosts=array(
            "Names by which clients call it, besides those that the chart knows", {"type": "string", "minLength": 1}
        ),
        preStopSeconds=whole("Seconds that a pod serves on after it was told to end", 0, 300),
        service=closed(
            "The Service that clients call",
            type=choice("Which", "ClusterIP", "NodePort", "LoadBalancer"),
            port=whole("Its port", 1, 65535),
            nodePort=whole("The node's port; Kubernetes chooses where 0", 0, 65535),
            loadBalancerSourceRanges=array("Who may use the load balancer", {"type": "string"}),
            annotations=strings("Its annotations"),
        ),
        ingress=closed(
            "An Ingress",
            enabled=flag("Whether there is one"),
            className=text("Its class", NAME),
            annotations=strings("Its annotations, a WebSocket's time limits among them"),
            hosts=array(
                "Hosts; clients may call the api by them",
                needing(closed("A host", host=host, path=text("Where it begins", r"^/")), "host"),
            ),
            tls=objects("As Ingress has it"),
        ),
        httpRoute=closed(
            "An HTTPRoute of the Gateway API",
            enabled=flag("Whether there is one"),
            parentRefs=objects("Gateways, as HTTPRoute has it"),
            hostnames=array("Hosts; clients may call the api by them", host),
            annotations=strings("Its annotations"),
            timeouts=closed("Time limits", request=duration, backendRequest=duration),
        ),
    )  # fmt: skip


def umbrella() -> Schema:
    """Values of helm/vegamite; those of the services are checked by their own charts."""

    def server(repository: str, **properties: Schema) -> Schema:
        return closed(
            "A server of the quickstart",
            image=image(repository),
            storage=text("Size of its volume", QUANTITY),
            storageClassName=text("Class of its volume; the cluster's default where empty", NAME),
            resources=resources(),
            **properties,
        )

    return closed(
        "Values of the whole of vegamite",
        **{
            "global": closed(
                "What the services share; their own values win over it",
                quickstart=flag("A try-out with a Kafka and a PostgreSQL of its own; not for production"),
                imageRegistry=text("Host (and path) before every image's name", r"^\S+$"),
                imagePullSecrets=array("Names of Secrets to pull with", {"type": "string"}),
                clusterDomain=text("Domain of the cluster", NAME),
                kafka=kafka(),
                postgres=postgres(),
            )
        },
        **{"vegamite-common": library()},
        **{name: table(f"Values of the chart {name}") for name in ("collector", "aggregator", "api")},
        dashboards=closed(
            "Grafana's dashboards as ConfigMaps",
            enabled=flag("Whether there are any"),
            labels=strings("Labels by which Grafana's sidecar finds them"),
            annotations=strings("Annotations, as a folder"),
        ),
        quickstart=closed(
            "What global.quickstart brings along",
            networkPolicy=closed(
                "Who may reach the two servers", enabled=flag("Whether only this release's pods may")
            ),
            kafka=server("apache/kafka", heap=text("Java's heap", r"^[0-9]+[kmg]$")),
            postgres=server("postgres"),
            demo=closed(
                "The simulated market sim:DEMO/USD",
                enabled=flag("Whether it is tracked"),
                historyHours=whole("Hours of its past that are made", 0, 8760),
                resources=resources(),
            ),
        ),
    )  # fmt: skip


def main() -> None:
    """Write the schemas, or with --check compare them."""
    check = sys.argv[1:] == ["--check"]
    stale = []
    for name, schema in {
        "collector": collector(), "aggregator": aggregator(), "api": api(), "vegamite": umbrella(),
    }.items():  # fmt: skip
        file = CHARTS / name / "values.schema.json"
        head = {"$schema": "http://json-schema.org/draft-07/schema#"}
        written = json.dumps({**head, **schema}, indent=2, ensure_ascii=False) + "\n"
        if not file.exists() or file.read_text(encoding="utf-8") != written:
            stale.append(file)
            if not check:
                file.write_text(written, encoding="utf-8")
    if check and stale:
        names = ", ".join(str(file.relative_to(CHARTS.parent)) for file in stale)
        sys.exit(f"not as helm/values_schema.py would write it (make schemas): {names}")


if __name__ == "__main__":
    main()
