"""How the values of the aggregator's chart describe what runs beside the aggregator: maintenance and the sink."""

from schema_connections import kafka_login, login
from schema_words import NAME, Schema, closed, filled, flag, key, resources, secret, text, whole


def maintenance() -> Schema:
    """The schedule of what keeps the store in order."""
    return closed(
        "What makes tables ahead and takes away what has expired, by a schedule",
        enabled=flag("Whether the chart does it"),
        schedule={
            "description": 'When, as cron has it: "17 * * * *" or @daily',
            "type": "string",
            "pattern": r"^(@(hourly|daily|weekly|monthly)|\S+( \S+){4})$",
        },
        timeZone=text("In which time zone; the cluster's where empty", r"^[A-Za-z0-9_+/-]+$"),
        suspend=flag("Whether it pauses"),
        startingDeadlineSeconds=whole("Seconds that a run may begin late", 10),
        successfulJobsHistoryLimit=whole("Runs that went well and are kept to be looked at", 0),
        failedJobsHistoryLimit=whole("Runs that failed and are kept to be looked at", 0),
        backoffLimit=whole("How often a failed run is tried again", 0, 10),
        deadlineSeconds=whole("Seconds for all tries together", 1),
        archive=closed(
            "Where trades are kept as Parquet before they are taken away",
            existingClaim=text("A PersistentVolumeClaim; no archive where empty", NAME),
            path={
                "description": "Where it appears in the pod",
                "type": "string",
                "pattern": r"^/[^\s:]+$",
            },
        ),
        resources=resources(),
    )


def sink() -> Schema:
    """The copy in InfluxDB."""
    bucket = r'^[^\x00-\x1f"\\]{1,200}$'
    return closed(
        "What writes a copy of trades and candles to InfluxDB, with the aggregator's image",
        enabled=flag("Whether there is one"),
        replicas=whole("How many pods; at most as many as partitions", 0),
        url=text(
            "Address of a server with the write API of InfluxDB 2",
            r"^https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[^\s@]*)?$",
        ),
        org=filled("Organisation that the buckets belong to", r"^.+$"),
        bucket=filled("Bucket of trades and the shorter candles", bucket),
        downsampledBucket=filled("Bucket of the longer candles", bucket),
        retentionDays=whole("Days that bucket keeps points; for ever where 0", 0, 36_500),
        downsampledRetentionDays=whole(
            "Days that downsampledBucket keeps points; for ever where 0", 0, 36_500
        ),
        existingSecret=secret("InfluxDB's token"),
        tokenKey=key("the token"),
        tls=closed(
            "Certificates, for an url with https",
            existingSecret=secret("the certificates of those who sign the server's certificate"),
            caKey=key("those certificates"),
        ),
        readRevised=flag("Whether it reads candles of large jobs from PostgreSQL"),
        postgres=closed("Another user of PostgreSQL than the aggregator's", **login()),
        kafka=kafka_login(),
        resources=resources(),
    )
