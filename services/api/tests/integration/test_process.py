"""The API as a process of its own, over real Kafka and a real database: keys, streams, SIGTERM, a taken port."""

import asyncio
import contextlib
import json
import sys
import uuid
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import websockets.asyncio.client as ws_client
from websockets.exceptions import ConnectionClosed

from vegamite_aggregator.migrate import topic_specs
from vegamite_api.adapters.bus_log import BusLog
from vegamite_common.bus.kafka import KafkaBus
from vegamite_common.bus.port import TRADES
from vegamite_common.domain.market import Market
from vegamite_common.domain.time import SECOND
from vegamite_common.domain.trade import Trade
from vegamite_common.messages.trades import TradesRecord, encode_trades
from vegamite_common.runtime.clock import SystemClock
from vegamite_common.runtime.section import KafkaSection, TopicsSection
from vegamite_common.testing.eventually import eventually
from vegamite_common.testing.service_process import ServiceProcess

NOON = 1_760_097_600 * SECOND
CONFIG = """
[log]
format = "json"
[kafka]
bootstrap_servers = "{kafka}"
[postgres]
url = "{postgres}"
[api]
port = {port}
management_port = 0
heartbeat_ms = 300
drain_ms = 300
"""


def _trade(number: int) -> Trade:
    return Trade(
        trade_id=str(number),
        sequence=number,
        event_time=NOON + number * SECOND,
        price=Decimal(100),
        amount=Decimal(1),
    )


async def _command(*arguments: str, config: Path) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "vegamite_api",
        "--config",
        str(config),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_a_process_serves_streams_from_kafka_until_sigterm(
    make_world: Any,
    kafka_bootstrap: str,
    tmp_path: Path,
    trades_record: Callable[..., TradesRecord],
) -> None:
    world = await make_world()
    await world.begin_log()
    market = Market("sim", f"T{uuid.uuid4().hex[:8].upper()}/USD")
    await world.market(market)
    config = tmp_path / "vegamite.toml"
    config.write_text(CONFIG.format(kafka=kafka_bootstrap, postgres=world.url, port=0), "utf-8")
    made, key, told = await _command("keys", "create", "--name", "test", config=config)
    assert (made, key.strip() in told) == (0, False)
    headers = {"Authorization": f"Bearer {key.strip()}"}

    bus = KafkaBus(KafkaSection(bootstrap_servers=kafka_bootstrap), SystemClock())
    await bus.start()
    process = ServiceProcess(
        [sys.executable, "-m", "vegamite_api", "--config", str(config)], log=tmp_path / "api.log"
    )
    try:
        await bus.create_topics(topic_specs(TopicsSection(partitions=3)))
        log = BusLog(bus)
        partition = log.partition_of(market.key, await log.partitions())
        before = (await log.bounds("trades", [partition]))[partition].end

        async def publish(*numbers: int) -> None:
            for number in numbers:
                record = trades_record(market, [_trade(number)])
                await bus.producer().publish(
                    TRADES, partition, [(market.key.encode(), encode_trades(record))]
                )

        await publish(*range(2000))
        process.start()
        port = await eventually(lambda: _port(process.log), timeout_s=60)
        address = f"127.0.0.1:{port}/v1/ws"
        async with ws_client.connect(
            f"ws://{address}", additional_headers=headers, proxy=None
        ) as socket:
            request = {
                "channel": "trades",
                "markets": [market.key],
                "resume": {market.key: f"1-{partition}-{before - 1}"},
            }
            ack = await _ask(socket, request)
            assert ack["success"], ack
            ids = await _ids(socket, 2000)
            await publish(2000, 2001)
            assert ids + await _ids(socket, 2) == [str(number) for number in range(2002)]
            stopping = asyncio.create_task(asyncio.to_thread(process.stop))
            last: list[dict[str, Any]] = []
            with contextlib.suppress(ConnectionClosed):
                while True:
                    last.append(json.loads(await socket.recv()))
            assert socket.close_code == 1012
            assert any(message.get("type") == "draining" for message in last)
        assert await stopping == 0
    finally:
        await asyncio.to_thread(process.kill)
        await bus.close()


async def _ask(socket: ws_client.ClientConnection, params: dict[str, Any]) -> dict[str, Any]:
    """Subscribe, again while the API has not reached the end of the log."""

    async def answered() -> dict[str, Any]:
        await socket.send(json.dumps({"method": "subscribe", "params": params}))
        while True:
            message: dict[str, Any] = json.loads(await socket.recv())
            if "success" in message:
                assert message.get("error", {}).get("code") != "UNAVAILABLE"
                return message

    return await eventually(answered, timeout_s=60, interval_s=0.2)


async def _ids(socket: ws_client.ClientConnection, count: int) -> list[str]:
    ids: list[str] = []
    async with asyncio.timeout(60):
        while len(ids) < count:
            message = json.loads(await socket.recv())
            ids += [row["trade_id"] for row in message.get("data", [])]
    return ids


def _port(log: Path) -> int:
    for line in log.read_text("utf-8").splitlines():
        told = json.loads(line)
        if told.get("message") == "serving":
            return int(told["port"])
    return 0


async def test_keys_are_listed_without_themselves_and_revoked(world: Any, tmp_path: Path) -> None:
    config = tmp_path / "vegamite.toml"
    config.write_text(CONFIG.format(kafka="127.0.0.1:1", postgres=world.url, port=0), "utf-8")
    arguments = ("keys", "create", "--scope", "admin", "--name", "a\nb", "--expires-days", "1")
    _, key, _ = await _command(*arguments, config=config)
    _, listed, _ = await _command("keys", "list", config=config)
    (line,) = listed.splitlines()
    key_id, scope, name, _ = line.split("\t")
    assert (scope, name) == ("admin", r"a\nb")
    assert key.strip() not in listed
    code, _, _ = await _command("keys", "revoke", key_id, config=config)
    assert code == 0
    code, _, error = await _command("keys", "revoke", key_id, config=config)
    assert (code, error.strip()) == (2, f"there is no key {key_id}")
    answer: httpx.Response = await world.http.delete(
        "/v1/tracked-markets", params={"market": "a:B/C"}, headers={"X-API-Key": key.strip()}
    )
    assert answer.status_code == 401


async def test_first_markets_are_tracked_once_and_strange_ones_refused(
    world: Any, tmp_path: Path
) -> None:
    config = tmp_path / "vegamite.toml"
    config.write_text(CONFIG.format(kafka="127.0.0.1:1", postgres=world.url, port=0), "utf-8")

    async def history() -> list[tuple[str, int]]:
        rows = await world.pool.fetch(
            "SELECT symbol, extract(epoch FROM now() - history_from)::bigint AS age"
            " FROM tracked_market JOIN market USING (market_key) ORDER BY symbol"
        )
        return [(row["symbol"], row["age"]) for row in rows]

    before = len(await history())
    arguments = ("track", "kraken:ADA/USD", "kraken:SOL/USD", "kraken:ADA/USD")
    code, said, error = await _command(*arguments, "--history-hours", "24", config=config)
    assert code == 0, error
    assert said == "kraken:ADA/USD\ttracked from now on\nkraken:SOL/USD\ttracked from now on\n"
    tracked = dict(await history())
    assert len(tracked) == before + 2
    assert 86_400 <= tracked["ADA/USD"] < 90_000

    code, said, error = await _command("track", "kraken:ADA/USD", config=config)
    assert (code, said) == (0, "kraken:ADA/USD\ttracked already\n"), error
    assert dict(await history())["ADA/USD"] >= 86_400  # its history stays

    code, _, error = await _command("track", "nowhere:ADA/USD", config=config)
    assert (code, error.strip()) == (2, "no collector knows the exchange nowhere")
    code, _, error = await _command("track", "ADA/USD", config=config)
    assert code == 2
    assert "allowed: exchange:SYMBOL" in error
    assert len(await history()) == before + 2


async def test_a_taken_port_is_one_sentence(world: Any, tmp_path: Path) -> None:
    config = tmp_path / "vegamite.toml"
    port = world.service.port
    config.write_text(CONFIG.format(kafka="127.0.0.1:1", postgres=world.url, port=port), "utf-8")
    code, _, error = await _command("run", config=config)
    assert code == 2
    assert error.count("\n") == 1
    assert f"127.0.0.1:{port} can't be listened on" in error
