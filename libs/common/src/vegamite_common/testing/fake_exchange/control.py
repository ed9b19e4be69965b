"""The fake exchange's second port, where other processes turn its switches.

`GET /control` tells switches, counters and the clock. `POST /control` takes a JSON object with any of these and gives
the same: `faults` (an object of switches), `drop` (`"abort"` or `"close"`), `rubbish` (true, or a list of texts to
send), `accept` (false: refuse connections; true: take them again).
"""

from typing import Any, Literal

import msgspec
from aiohttp import web

from vegamite_common.testing.fake_exchange.faults import RUBBISH
from vegamite_common.testing.fake_exchange.server import FakeExchange


class ControlRequest(msgspec.Struct, forbid_unknown_fields=True):
    """What `POST /control` may ask for; everything absent stays as it is."""

    faults: dict[str, Any] = msgspec.field(default_factory=dict)
    drop: Literal["abort", "close"] | None = None
    rubbish: bool | list[str] = False
    accept: bool | None = None


class ControlServer:
    """Serves the control of one fake exchange on a loopback port of its own, so that it works while others are refused."""

    def __init__(self, exchange: FakeExchange, *, port: int = 0) -> None:
        self._exchange = exchange
        self._port = port
        application = web.Application()
        application.router.add_get("/control", self._get)
        application.router.add_post("/control", self._post)
        self._runner = web.AppRunner(application, shutdown_timeout=0.1)

    async def __aenter__(self) -> "ControlServer":
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        """The address of the control, `http://127.0.0.1:<port>/control`."""
        return f"http://127.0.0.1:{self._port}/control"

    async def _get(self, _: web.Request) -> web.Response:
        return web.json_response(self._exchange.status())

    async def _post(self, request: web.Request) -> web.Response:
        try:
            wanted = msgspec.json.decode(await request.read(), type=ControlRequest)
            self._exchange.faults.change(wanted.faults)
        except msgspec.MsgspecError as error:
            return web.json_response({"error": str(error)}, status=400)
        if wanted.accept is True:
            await self._exchange.accept_connections()
        elif wanted.accept is False:
            await self._exchange.refuse_connections()
        if wanted.rubbish:
            self._exchange.send_frames(RUBBISH if wanted.rubbish is True else wanted.rubbish)
        if wanted.drop:
            await self._exchange.drop_sockets(politely=wanted.drop == "close")
        return web.json_response(self._exchange.status())
