"""`/v1/ws`: the handshake's checks, and the framework's socket as a connection takes it."""

import asyncio

import structlog
from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect, WebSocketState

from vegamite_api.core.access import origin_allowed
from vegamite_api.core.refusal import RefusedError, shown
from vegamite_api.http.context import Context, context_of
from vegamite_api.http.problem import problem_response, unavailable
from vegamite_api.http.security import identify, presented_key
from vegamite_api.ports import StoreError
from vegamite_api.service.connection import Connection

router = APIRouter()
log = structlog.get_logger(__name__)

_INTERNAL_ERROR = 1011


class _Socket:
    """The framework's WebSocket, with a client that is gone as `ConnectionError` or None."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket

    async def receive(self) -> str | bytes | None:
        """Return the next message; None once the client is gone."""
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            return None
        text = message.get("text")
        if text is not None:
            return str(text)
        return bytes(message.get("bytes") or b"")

    async def send(self, text: str) -> None:
        """Send a message, waiting until the transport takes it."""
        try:
            await self._websocket.send_text(text)
        except (WebSocketDisconnect, RuntimeError, OSError) as error:
            raise ConnectionResetError from error

    async def close(self, code: int, reason: str) -> None:
        """Close with a code; closing what is closed is harmless."""
        if self._websocket.application_state is not WebSocketState.CONNECTED:
            return
        try:
            await self._websocket.close(code, reason)
        except (WebSocketDisconnect, RuntimeError, OSError) as error:
            raise ConnectionResetError from error


def _check_handshake(websocket: WebSocket, context: Context) -> None:
    if websocket.query_params:
        raise RefusedError(
            "unknown_parameter",
            "the address of the stream has no parameters",
            parameter=shown(next(iter(websocket.query_params))),
            allowed="no parameters; a key goes into a header or the auth message",
        )
    origin = websocket.headers.get("origin")
    host = websocket.headers.get("host", "")
    if not origin_allowed(origin, host=host, allowed=context.section.allowed_origins):
        raise RefusedError(
            "origin_not_allowed",
            f"pages of {shown(origin or '')} may not connect",
            parameter="Origin",
            allowed="this server's own page, and the setting api.allowed_origins",
        )


@router.websocket("/v1/ws")
async def stream(websocket: WebSocket) -> None:
    """Serve one WebSocket client."""
    context = context_of(websocket)
    try:
        _check_handshake(websocket, context)
        identity = await identify(websocket)
        key = presented_key(websocket)
    except RefusedError as error:
        await websocket.send_denial_response(problem_response(error))
        return
    except StoreError:
        await websocket.send_denial_response(unavailable())
        return
    await websocket.accept()
    client = websocket.client
    connection = Connection(
        _Socket(websocket),
        context.services,
        identity=identity,
        key_digest=None if key is None else context.keys.digest(key),
        address=client.host if client else "",
    )
    try:
        await connection.run()
    except asyncio.CancelledError:
        raise
    except Exception as error:
        log.error("a connection failed", exc_info=error)
        await _close_failed(websocket)


async def _close_failed(websocket: WebSocket) -> None:
    try:
        await _Socket(websocket).close(_INTERNAL_ERROR, "internal error")
    except ConnectionError:
        return
