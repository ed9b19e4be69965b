"""The HTTP server inside a running event loop: its own socket, no signal handlers, ended from outside."""

import contextlib
import logging
import socket
from collections.abc import Iterator

import uvicorn
from fastapi import FastAPI

from vegamite_common.runtime.lifecycle import StartError

BACKLOG = 2_048
_USER_TIMEOUT_MS = 30_000
_GRACE_SECONDS = 8


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the process: they are not this server's."""
        yield


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket; raises `StartError`, in one sentence, where the address can't be used."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise StartError(f"{host} is no address to listen on: {error.strerror}") from None
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(BACKLOG)
        bound.settimeout(0)
    except OSError as error:
        bound.close()
        raise StartError(
            f"{host}:{port} can't be listened on: {error.strerror}; another port can be chosen"
        ) from None
    return bound


class HttpServer:
    """Serves an application on a bound socket from `run` until `stop`."""

    def __init__(self, app: FastAPI, bound: socket.socket, *, message_bytes: int) -> None:
        self._bound = bound
        # A client that takes nothing for so long is gone: the kernel drops what waits for it.
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _USER_TIMEOUT_MS)
        # Its own words add nothing to ours, and foreign bytes would put tracebacks into the log.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL + 1)
        self._server = _Server(
            uvicorn.Config(
                app,
                http="httptools",
                ws="websockets-sansio",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                # The limit itself is ours to tell, with an error message first; this is what no message may reach.
                ws_max_size=message_bytes * 4 + 1_048_576,
                ws_per_message_deflate=False,
                timeout_graceful_shutdown=_GRACE_SECONDS,
                timeout_keep_alive=75,
            )
        )

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return int(self._bound.getsockname()[1])

    async def run(self) -> None:
        """Serve until `stop`, then let answers in progress end."""
        await self._server.serve(sockets=[self._bound])

    def stop(self) -> None:
        """Take no new connection, and end `run` soon."""
        self._server.should_exit = True
