"""The collector as a process of its own, over real Kafka and a real database: start, collect, SIGTERM."""

from __future__ import annotations

import asyncio
import signal
import sys
import uuid
from pathlib import Path

import asyncpg

from vegamite_aggregator.migrate import topic_specs
from vegamite_collector.core.demo import DEMO_MARKET, trades_between
from vegamite_common.bus.kafka import KafkaBus
from vegamite_common.bus.port import TRADES
from vegamite_common.domain.time import SECOND
from vegamite_common.messages.trades import (
    SpanClosed,
    TradesRecord,
    TradesTopicRecord,
    decode_trades,
)
from vegamite_common.runtime.clock import SystemClock
from vegamite_common.runtime.section import KafkaSection, TopicsSection
from vegamite_common.testing.eventually import eventually

CONFIG = """
[log]
format = "json"

[kafka]
bootstrap_servers = "{kafka}"

[postgres]
url = "{postgres}"

[collector]
group = "{group}"
management_port = 0
heartbeat_ms = 200

[collector.demo]
enabled = true
seed = 11
"""


async def start(config: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "vegamite_collector",
        "--config",
        str(config),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )


async def test_a_process_collects_until_sigterm_and_leaves_nothing_unwritten(
    kafka_bootstrap: str, schema: str, tmp_path: Path
) -> None:
    clock = SystemClock()
    bus = KafkaBus(KafkaSection(bootstrap_servers=kafka_bootstrap), clock)
    await bus.start()
    try:
        await bus.create_topics(topic_specs(TopicsSection(partitions=3)))
        count = await bus.partition_count(TRADES)
        connection = await asyncpg.connect(schema)
        await connection.execute(
            "INSERT INTO tracked_market (market_key) SELECT ensure_market('sim', 'DEMO/USD', 'spot', 'DEMO', 'USD', NULL)"
        )
        reader = await bus.reader(TRADES)
        await reader.seek(await reader.end_offsets(range(count)))
        config = tmp_path / "vegamite.toml"
        config.write_text(
            CONFIG.format(kafka=kafka_bootstrap, postgres=schema, group=f"test-{uuid.uuid4()}"),
            encoding="utf-8",
        )
        process = await start(config)
        began = clock.now()
        records: list[TradesTopicRecord] = []

        async def read() -> None:
            for fetched in await reader.poll(max_records=500, timeout=0.1):
                records.extend(decode_trades(message.value) for message in fetched.messages)

        async def collected() -> None:
            await read()
            assert any(isinstance(record, TradesRecord) for record in records)

        async def reported() -> None:
            state = await connection.fetchval("SELECT state FROM market_state")
            assert state in ("connecting", "live")

        await eventually(collected, timeout_s=40)
        await eventually(reported)
        process.send_signal(signal.SIGTERM)
        output, _ = await asyncio.wait_for(process.communicate(), 25)
        assert process.returncode == 0, output.decode()

        async def closed() -> None:
            await read()
            assert [r.cause for r in records if isinstance(r, SpanClosed)] == ["stopped"]

        await eventually(closed)
        [span] = [r for r in records if isinstance(r, SpanClosed)]
        have = {t.trade_id for r in records if isinstance(r, TradesRecord) for t in r.trades}
        live = {t.trade_id for t in trades_between(11, began + 10 * SECOND, span.to_time)}
        assert live <= have
        assert await connection.fetchval("SELECT state FROM market_state") == "pending"
        assert DEMO_MARKET.key in output.decode()
        await connection.close()
    finally:
        await bus.close()


async def test_a_wrong_configuration_is_one_sentence_and_exit_code_2(tmp_path: Path) -> None:
    config = tmp_path / "vegamite.toml"
    config.write_text("[collector]\nheartbeat = 5\n", encoding="utf-8")
    process = await start(config)
    output, _ = await asyncio.wait_for(process.communicate(), 25)
    assert process.returncode == 2
    text = output.decode()
    assert "collector.heartbeat" in text
    assert f"{config}:2" in text
    assert "Traceback" not in text
