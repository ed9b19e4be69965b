import re
import socket

import pytest

from vegamite_common.runtime.lifecycle import StartError
from vegamite_standalone.listen import page_url, take_address


def test_a_taken_port_is_one_plain_sentence() -> None:
    with take_address("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        expected = (
            f"port {port} on 127.0.0.1 is in use by another program; choose another one with --port"
        )
        with pytest.raises(StartError, match=f"^{re.escape(expected)}$"):
            take_address("127.0.0.1", port)


def test_the_port_is_free_again_when_the_socket_is_closed() -> None:
    with take_address("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
    with take_address("127.0.0.1", port) as second:
        assert second.getsockname()[1] == port


@pytest.mark.parametrize("host", ["192.0.2.1", "a..b"])
def test_an_address_of_another_machine_is_one_plain_sentence(host: str) -> None:
    with pytest.raises(
        StartError, match=f"^{host} is no address of this machine; choose one with --host$"
    ):
        take_address(host, 0)


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("localhost", "localhost"),
        ("0.0.0.0", "127.0.0.1"),
        ("::", "[::1]"),
        ("::1", "[::1]"),
    ],
)
def test_the_page_is_where_a_browser_on_this_machine_finds_it(host: str, shown: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert page_url(server, host=host, key="vgm_k") == f"http://{shown}:{port}/#key=vgm_k"
