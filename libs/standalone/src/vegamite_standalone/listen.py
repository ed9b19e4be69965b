"""The address that the process listens on, taken before anything else is begun."""

import errno
import socket

from vegamite_common.runtime.lifecycle import StartError

BACKLOG = 2_048
CLIENT_TIMEOUT_MS = 30_000


def take_address(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to the address (port 0: one of the system's choice); `StartError` where it can't be."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError):
        raise StartError(f"{host} is no address of this machine; choose one with --host") from None
    family, kind, protocol, _, address = found[0]
    taken = socket.socket(family, kind, protocol)
    try:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # A client that takes nothing for so long is gone: the kernel drops what waits for it.
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            taken.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, CLIENT_TIMEOUT_MS)
        taken.bind(address)
        taken.listen(BACKLOG)
        taken.settimeout(0)
    except OSError as error:
        taken.close()
        raise StartError(_reason(error, host, port)) from None
    return taken


def _reason(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use by another program; choose another one with --port"
    if error.errno == errno.EACCES:
        return f"port {port} on {host} may not be used by this user; choose another one with --port"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is no address of this machine; choose one with --host"
    return f"port {port} on {host} can't be used: {error.strerror}"


def page_url(taken: socket.socket, *, host: str, key: str) -> str:
    """Return where a browser on this machine finds the page, with the key where no server sees it."""
    port = taken.getsockname()[1]
    name = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}.get(host, host)  # noqa: S104
    if ":" in name and not name.startswith("["):
        name = f"[{name}]"
    return f"http://{name}:{port}/#key={key}"
