"""Buckets and how long they keep points: by the API of InfluxDB 2, or as databases of InfluxDB 1.8, which lacks it."""

from typing import Any

import structlog
from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.domain.bucket_retention_rules import BucketRetentionRules
from influxdb_client.rest import ApiException
from influxdb_client.service.buckets_service import BucketsService

from vegamite_aggregator.adapters.influx_statement import ask_statement, database_of, quoted
from vegamite_aggregator.config import InfluxSection

_DAY_SECONDS = 86_400
log = structlog.get_logger(__name__)


def prepare_buckets(
    client: InfluxDBClient, section: InfluxSection, *, url: str, token: str
) -> None:
    """Make the two buckets where they are missing, and have them keep points as long as configured.

    Raises `SinkError`, or what the client raises.
    """
    wanted = {
        section.bucket: section.retention_days * _DAY_SECONDS,
        section.downsampled_bucket: section.downsampled_retention_days * _DAY_SECONDS,
    }
    service: Any = BucketsService  # the client is generated, and has no types here
    try:
        service(client.api_client).get_buckets(limit=1)
    except ApiException as error:
        if error.status != 404:
            raise
        for name, seconds in wanted.items():
            _prepare_database(section, url, token, name, seconds)
        return
    for name, seconds in wanted.items():
        _prepare_bucket(client, section.org, name, seconds)


def _prepare_bucket(client: InfluxDBClient, org: str, name: str, seconds: int) -> None:
    api: Any = client.buckets_api()
    rule: Any = BucketRetentionRules
    try:
        bucket = api.find_bucket_by_name(name)
    except ApiException as error:
        if error.status != 404:
            raise
        bucket = None
    rules = [rule(type="expire", every_seconds=seconds)]
    if bucket is None:
        api.create_bucket(bucket_name=name, retention_rules=rules, org=org)
        log.info("bucket made", bucket=name, retention_seconds=seconds)
        return
    kept = next((one.every_seconds for one in bucket.retention_rules or ()), 0)
    if kept != seconds:
        bucket.retention_rules = rules
        api.update_bucket(bucket)
        log.info("retention set", bucket=name, retention_seconds=seconds, before=kept)


def _prepare_database(
    section: InfluxSection, url: str, token: str, name: str, seconds: int
) -> None:
    """A bucket `database/policy` is that; one without a slash is a database with its own first policy."""
    database, policy = database_of(name)
    duration = f"{seconds}s"
    ask_statement(section, url, token, f"CREATE DATABASE {quoted(database)}")
    found = ask_statement(section, url, token, f"SHOW RETENTION POLICIES ON {quoted(database)}")
    series = found["results"][0].get("series", [{}])[0]
    there = {row[0] for row in series.get("values", ())}
    verb = "ALTER" if policy in there else "CREATE"
    replication = "" if policy in there else " REPLICATION 1"
    ask_statement(
        section,
        url,
        token,
        f"{verb} RETENTION POLICY {quoted(policy)} ON {quoted(database)} DURATION {duration}{replication}",
    )
