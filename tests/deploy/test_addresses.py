import socket

import pytest

from deploy.addresses import Address, claim
from deploy.errors import StartError


def test_a_taken_port_is_named_with_its_setting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(StartError, match=f"port {port} is taken.*ANANSE_PORT"):
            claim("127.0.0.1", port, "ANANSE_PORT")


def test_port_0_becomes_a_free_one() -> None:
    assert claim("127.0.0.1", 0, "ANANSE_PORT").port > 0


def test_a_foreign_address_is_refused() -> None:
    with pytest.raises(StartError, match="ANANSE_HOST"):
        claim("192.0.2.1", 8000, "ANANSE_PORT")


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::", "http://[::1]:8000"),
        ("example.org", "http://example.org:8000"),
    ],
)
def test_the_url_is_the_one_to_use_on_this_machine(host: str, url: str) -> None:
    assert Address(host, 8000).url == url
