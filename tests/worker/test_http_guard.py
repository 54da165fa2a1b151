"""However it is asked, the client does not go inside, and nobody outside can hold it."""

import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.worker.hostile_urls import HOSTILE_URLS
from tests.worker.receiver import Receiver, http, receiver
from worker.addresses import is_public, unwrapped
from worker.http_guard import ANSWER_BYTES, WIRE_BYTES, GuardedSender

LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
PUBLIC = "93.184.215.14"


def resolver(*addresses: str) -> Callable[[str, int], Sequence[str]]:
    """Every name has these addresses."""
    return lambda host, port: addresses


@pytest.fixture(scope="module")
def tls() -> ssl.SSLContext:
    """Made once: reading the certificates of all authorities takes a while."""
    return ssl.create_default_context()


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Every address a socket was opened to from the moment of asking; the sockets go nowhere."""
    opened: list[tuple[str, int]] = []

    def refuse(address: tuple[str, int], *rest: object) -> socket.socket:
        opened.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", refuse)
    return opened


@pytest.fixture
def _loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Should the guard fail, the test must not go out either."""
    connect = socket.create_connection

    def only_loopback(address: tuple[str, int], *rest: Any) -> socket.socket:
        assert unwrapped(ip_address(address[0])).is_loopback, f"went to {address}"
        return connect(address, *rest)

    monkeypatch.setattr(socket, "create_connection", only_loopback)


@pytest.fixture(scope="module")
def canary() -> Iterator[Receiver]:
    with receiver() as listening:
        yield listening


@pytest.mark.usefixtures("_loopback_only")
@pytest.mark.parametrize("url", HOSTILE_URLS)
def test_no_spelling_leads_inside(url: str, canary: Receiver, tls: ssl.SSLContext) -> None:
    outcome = GuardedSender(2.0, ssl_context=tls).send(url.replace("{p}", str(canary.port)), {}, b"{}")

    assert outcome.status is None
    assert outcome.error in ("blocked_address", "invalid_url", "dns")
    assert canary.connections == 0


@pytest.mark.usefixtures("_loopback_only")
def test_the_table_of_hostile_urls_is_long_and_mostly_about_addresses(tls: ssl.SSLContext) -> None:
    outcomes = [
        GuardedSender(2.0, ssl_context=tls).send(url.format(p=9), {}, b"").error for url in HOSTILE_URLS
    ]

    assert len(HOSTILE_URLS) >= 60
    assert outcomes.count("blocked_address") >= 60


@pytest.mark.parametrize(
    "addresses",
    [
        (PUBLIC, "127.0.0.1"),
        ("10.0.0.7", PUBLIC),
        (PUBLIC, "2606:2800:220:1::1", "::1"),
        (PUBLIC, "::ffff:192.168.0.1"),
        (PUBLIC, "fe80::1%2"),
        (PUBLIC, "64:ff9b::a00:1"),
    ],
)
def test_one_bad_address_condemns_the_name(
    addresses: tuple[str, ...], connected: list[tuple[str, int]], tls: ssl.SSLContext
) -> None:
    sender = GuardedSender(2.0, resolve=resolver(*addresses), ssl_context=tls)

    assert sender.send("https://example.com/", {}, b"").error == "blocked_address"
    assert connected == []


def test_the_name_is_asked_for_once_and_the_checked_address_is_connected_to(
    connected: list[tuple[str, int]], tls: ssl.SSLContext
) -> None:
    asked: list[str] = []
    answers = iter([[PUBLIC], ["127.0.0.1"], ["127.0.0.1"]])

    def rebinding(host: str, port: int) -> list[str]:
        asked.append(host)
        return next(answers)

    outcome = GuardedSender(2.0, resolve=rebinding, ssl_context=tls).send("http://rebind.example/", {}, b"")

    assert outcome.error == "connect"
    assert asked == ["rebind.example"]
    assert connected == [(PUBLIC, 80)]


def test_addresses_are_tried_in_order_until_one_answers(tls: ssl.SSLContext) -> None:
    with receiver() as listening:
        sender = GuardedSender(
            5.0, LOOPBACK, resolve=resolver("127.0.0.2", "::1", "127.0.0.1"), ssl_context=tls
        )

        assert sender.send(listening.url("two.example"), {}, b"").status == 200


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("http://example.com/", "connect"),
        ("https://example.com/", "connect"),
        ("http://example.com:443/", "connect"),
        ("https://example.com:80/", "connect"),
        ("http://example.com:22/", "blocked_port"),
        ("https://example.com:8443/", "blocked_port"),
        ("http://example.com:6379/", "blocked_port"),
    ],
)
def test_strangers_are_reached_on_the_usual_ports_only(
    url: str, error: str, connected: list[tuple[str, int]], tls: ssl.SSLContext
) -> None:
    assert GuardedSender(2.0, resolve=resolver(PUBLIC), ssl_context=tls).send(url, {}, b"").error == error
    assert bool(connected) == (error == "connect")


@pytest.mark.parametrize("name", ["user", "user:secret", "", ":", "a@b", "user%40x"])
def test_a_user_name_in_the_address_is_refused(
    name: str, connected: list[tuple[str, int]], tls: ssl.SSLContext
) -> None:
    sender = GuardedSender(2.0, resolve=resolver(PUBLIC), ssl_context=tls)

    assert sender.send(f"http://{name}@example.com/", {}, b"").error == "invalid_url"
    assert connected == []


@pytest.mark.parametrize(
    "address",
    [PUBLIC, "1.1.1.1", "192.0.1.1", "100.63.255.255", "2606:4700:4700::1111", "2a00:1450::1", "2003::1"],
)
def test_public_addresses_are_public(address: str) -> None:
    assert is_public(ip_address(address))


def test_every_network_that_is_not_the_open_internet_is_refused_from_end_to_end() -> None:
    refused = """
        0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24
        192.0.2.0/24 192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24
        224.0.0.0/4 240.0.0.0/4
        ::/96 ::ffff:127.0.0.0/104 64:ff9b::/96 64:ff9b:1::/48 100::/64 2001::/32 2001:3::/32 2001:20::/28
        2001:db8::/32 2002::/16
        3fff::/20 5f00::/16 fc00::/7 fe80::/10 fec0::/10 ff00::/8
    """
    for network in map(ip_network, refused.split()):
        for address in (network[0], network[network.num_addresses // 2], network[-1]):
            assert not is_public(unwrapped(address)), address


def test_an_allowed_network_is_reached_on_any_port(tls: ssl.SSLContext) -> None:
    with receiver(http(202, b"thanks")) as listening:
        outcome = GuardedSender(5.0, LOOPBACK, ssl_context=tls).send(
            listening.url(), {"x-mine": "1"}, b'{"a":1}'
        )

        assert (outcome.status, outcome.error, outcome.answer, outcome.delivered) == (
            202,
            None,
            "thanks",
            True,
        )
        assert outcome.duration_s > 0
        (request,) = listening.requests
        assert request.startswith(b"POST /hook HTTP/1.1\r\n")
        assert request.endswith(b'\r\n\r\n{"a":1}')
        assert b"\r\nx-mine: 1\r\n" in request.lower()


def test_a_mapped_address_of_an_allowed_network_is_that_network(tls: ssl.SSLContext) -> None:
    with receiver() as listening:
        sender = GuardedSender(5.0, (ip_network("127.0.0.0/8"),), ssl_context=tls)

        assert sender.send(listening.url("[::ffff:127.0.0.1]"), {}, b"").delivered


def test_an_allowed_network_does_not_open_its_neighbours(canary: Receiver, tls: ssl.SSLContext) -> None:
    sender = GuardedSender(2.0, (ip_network("127.9.0.0/16"),), ssl_context=tls)

    assert sender.send(canary.url(), {}, b"").error == "blocked_address"
    assert canary.connections == 0


def test_the_name_stays_in_the_host_header(tls: ssl.SSLContext) -> None:
    with receiver() as listening:
        sender = GuardedSender(5.0, LOOPBACK, resolve=resolver("127.0.0.1"), ssl_context=tls)
        sender.send(listening.url("hooks.example"), {}, b"")

        assert f"\r\nhost: hooks.example:{listening.port}\r\n".encode() in listening.requests[0].lower()


def test_a_redirect_is_an_answer_and_not_followed(canary: Receiver, tls: ssl.SSLContext) -> None:
    for status in (301, 302, 303, 307, 308):
        with receiver(http(status, location=canary.url())) as listening:
            outcome = GuardedSender(5.0, LOOPBACK, ssl_context=tls).send(listening.url(), {}, b"")

            assert (outcome.status, outcome.delivered, listening.connections) == (status, False, 1)
    with receiver(http(302, location="http://169.254.169.254/latest/meta-data/")) as listening:
        assert GuardedSender(5.0, LOOPBACK, ssl_context=tls).send(listening.url(), {}, b"").status == 302
    assert canary.connections == 0


def test_the_environment_does_not_choose_a_proxy(
    canary: Receiver, monkeypatch: pytest.MonkeyPatch, tls: ssl.SSLContext
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, canary.url(path=""))
    with receiver() as listening:
        assert GuardedSender(5.0, LOOPBACK, ssl_context=tls).send(listening.url(), {}, b"").delivered
    assert canary.connections == 0


def test_a_compressed_answer_is_not_asked_for_and_not_unpacked(tls: ssl.SSLContext) -> None:
    with receiver(http(200, b"\x1f\x8b never unpacked", content_encoding="gzip")) as listening:
        outcome = GuardedSender(5.0, LOOPBACK, ssl_context=tls).send(listening.url(), {}, b"")

        assert b"accept-encoding: identity" in listening.requests[0].lower()
        assert outcome.answer.endswith("never unpacked")


def drip(first: bytes, drop: bytes, closing: threading.Event) -> Callable[[socket.socket], None]:
    """Sends `first`, then `drop` again and again, for as long as somebody listens."""

    def answer(connection: socket.socket) -> None:
        connection.sendall(first)
        while not closing.wait(0.02):
            connection.sendall(drop)

    return answer


@pytest.mark.parametrize(
    ("first", "drop"),
    [
        (b"", b""),
        (b"HTTP/1.1 200 OK\r\nx-slow: ", b"a"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
)
def test_slow_headers_end_with_the_attempt(first: bytes, drop: bytes, tls: ssl.SSLContext) -> None:
    closing = threading.Event()
    with receiver(drip(first, drop, closing)) as listening:
        started = time.monotonic()
        outcome = GuardedSender(0.3, LOOPBACK, ssl_context=tls).send(listening.url(), {}, b"")
        closing.set()

    assert (outcome.status, outcome.error) == (None, "timeout")
    # Each byte alone would be in time, for ever.
    assert 0.25 < time.monotonic() - started < 30


def test_a_slow_body_ends_with_the_attempt_and_the_status_stands(tls: ssl.SSLContext) -> None:
    closing = threading.Event()
    with receiver(drip(b"HTTP/1.1 200 OK\r\n\r\n", b"z", closing)) as listening:
        outcome = GuardedSender(0.3, LOOPBACK, ssl_context=tls).send(listening.url(), {}, b"")
        closing.set()

    assert outcome.delivered
    assert outcome.duration_s < 1.5
    assert set(outcome.answer) == {"z"}


def test_a_receiver_that_never_reads_ends_with_the_attempt(tls: ssl.SSLContext) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}/"
        outcome = GuardedSender(0.3, LOOPBACK, ssl_context=tls).send(url, {}, bytes(50_000_000))

    assert outcome.error == "timeout"
    assert outcome.duration_s < 1.5


def test_a_name_look_up_that_hangs_ends_with_the_attempt(tls: ssl.SSLContext) -> None:
    release = threading.Event()

    def hanging(host: str, port: int) -> list[str]:
        release.wait(5)
        return [PUBLIC]

    outcome = GuardedSender(0.2, resolve=hanging, ssl_context=tls).send("http://example.com/", {}, b"")
    release.set()

    assert outcome.error == "timeout"
    assert outcome.duration_s < 1.0


def counted(head: bytes, closing: threading.Event, sent: list[int]) -> Callable[[socket.socket], None]:
    """Sends without end, and notes how much went out."""

    def answer(connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
        connection.sendall(head)
        while not closing.is_set():
            sent[0] += connection.send(b"x" * 16_384)

    return answer


def test_a_huge_answer_is_read_no_further_than_its_bound(tls: ssl.SSLContext) -> None:
    closing, sent = threading.Event(), [0]
    with receiver(counted(b"HTTP/1.1 200 OK\r\n\r\n", closing, sent)) as listening:
        outcome = GuardedSender(5.0, LOOPBACK, ssl_context=tls).send(listening.url(), {}, b"")
        closing.set()

    assert outcome.delivered
    assert outcome.duration_s < 2
    assert outcome.answer == "x" * 1024
    # The kernel's own buffers take some more than we read.
    assert sent[0] < ANSWER_BYTES + 8_000_000


def test_once_enough_was_read_nothing_more_is_waited_for(tls: ssl.SSLContext) -> None:
    enough = b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * ANSWER_BYTES
    closing = threading.Event()
    with receiver(drip(enough, b"", closing)) as listening:
        outcome = GuardedSender(5.0, LOOPBACK, ssl_context=tls).send(listening.url(), {}, b"")
        closing.set()

    assert outcome.delivered
    assert outcome.duration_s < 2


@pytest.mark.parametrize(
    "head",
    [b"HTTP/1.1 200 OK\r\nx-huge: ", b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 40_000, b"y" * (2 * WIRE_BYTES)],
)
def test_huge_headers_are_refused(head: bytes, tls: ssl.SSLContext) -> None:
    closing = threading.Event()
    with receiver(counted(head, closing, [0])) as listening:
        outcome = GuardedSender(5.0, LOOPBACK, ssl_context=tls).send(listening.url(), {}, b"")
        closing.set()

    assert outcome.status is None
    assert outcome.error in ("protocol", "too_large")


def test_interim_answers_without_end_are_refused(tls: ssl.SSLContext) -> None:
    with receiver(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" * 20_000) as listening:
        outcome = GuardedSender(5.0, LOOPBACK, ssl_context=tls).send(listening.url(), {}, b"")

    assert (outcome.status, outcome.error) == (None, "too_large")


@pytest.mark.parametrize(
    ("answer", "error"),
    [(b"SSH-2.0-OpenSSH_9.9\r\n", "protocol"), (b"+PONG\r\n\r\n", "protocol"), (b"", "protocol")],
)
def test_what_is_not_http_is_a_named_error(answer: bytes, error: str, tls: ssl.SSLContext) -> None:
    with receiver(answer) as listening:
        assert GuardedSender(5.0, LOOPBACK, ssl_context=tls).send(listening.url(), {}, b"").error == error


@pytest.mark.parametrize("location", ["http://[", "ftp://x/", "//\x7f", "http://a:b/", ":", "\xff"])
def test_a_redirect_that_cannot_be_read_is_an_outcome(location: str, tls: ssl.SSLContext) -> None:
    answer = http(302).replace(b"\r\n\r\n", b"\r\nlocation: " + location.encode("latin-1") + b"\r\n\r\n")
    with receiver(answer) as listening:
        outcome = GuardedSender(5.0, LOOPBACK, ssl_context=tls).send(listening.url(), {}, b"")

    assert (outcome.status, outcome.error) in ((302, None), (None, "protocol"))


header_lines = st.lists(
    st.sampled_from([b"location: http://[\r\n", b"set-cookie: a=b; Domain=.\r\n", b"retry-after: x\r\n"])
    | st.sampled_from(
        [b"transfer-encoding: chunked\r\n", b"content-length: 9\r\n", b"content-encoding: br\r\n"]
    )
    | st.binary(max_size=20),
    max_size=4,
).map(b"".join)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 101 X\r\n", b"HTTP/1.0 302\r\n", b""]),
    header_lines,
    st.binary(),
)
def test_whatever_comes_back_is_an_outcome(status: bytes, lines: bytes, rest: bytes) -> None:
    with receiver(status + lines + b"\r\n" + rest) as listening:
        outcome = GuardedSender(5.0, LOOPBACK, ssl_context=NO_TLS).send(listening.url(), {}, b"{}")

    assert (outcome.status is None) == (outcome.error is not None)


@pytest.mark.parametrize("headers", [{"x": "a\r\nb: c"}, {"x y": "1"}, {"x": "Akɔ"}, {"": "1"}])
def test_headers_that_cannot_be_sent_are_a_named_error(headers: dict[str, str], tls: ssl.SSLContext) -> None:
    with receiver() as listening:
        outcome = GuardedSender(5.0, LOOPBACK, ssl_context=tls).send(listening.url(), headers, b"")

        assert outcome.error == "invalid_request"
        assert listening.requests == []


def test_nobody_home_is_a_named_error(tls: ssl.SSLContext) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"

    assert GuardedSender(5.0, LOOPBACK, ssl_context=tls).send(url, {}, b"").error == "connect"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key and certificate for hooks.example, in one file."""
    folder = tmp_path_factory.mktemp("tls")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=hooks.example", "-addext", "subjectAltName=DNS:hooks.example"]
    try:
        subprocess.run(
            [*command, "-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
            check=True,
            capture_output=True,
        )
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    both = folder / "both.pem"
    both.write_bytes((folder / "key.pem").read_bytes() + (folder / "cert.pem").read_bytes())
    return both


@pytest.mark.parametrize(("host", "error"), [("hooks.example", None), ("other.example", "tls")])
def test_tls_is_checked_against_the_name_and_not_the_address(
    host: str, error: str | None, certificate: Path
) -> None:
    names: list[str | None] = []
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate)
    server.sni_callback = lambda sock, name, context: names.append(name)

    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                try:
                    with server.wrap_socket(connection, server_side=True) as secured:
                        secured.recv(65536)
                        secured.sendall(http(200))
                except OSError:
                    return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        trusted = ssl.create_default_context(cafile=str(certificate))
        sender = GuardedSender(5.0, LOOPBACK, resolve=resolver("127.0.0.1"), ssl_context=trusted)
        outcome = sender.send(f"https://{host}:{listening.getsockname()[1]}/", {}, b"")
        thread.join(5)

    assert outcome.error == error
    assert outcome.delivered is (error is None)
    assert names == [host]


def test_a_certificate_of_unknown_origin_is_refused(certificate: Path, tls: ssl.SSLContext) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate)

    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                try:
                    server.wrap_socket(connection, server_side=True).close()
                except OSError:
                    return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        sender = GuardedSender(5.0, LOOPBACK, resolve=resolver("127.0.0.1"), ssl_context=tls)
        outcome = sender.send(f"https://hooks.example:{listening.getsockname()[1]}/", {}, b"")
        thread.join(5)

    assert outcome.error == "tls"
