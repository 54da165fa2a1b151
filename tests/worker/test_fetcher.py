"""Recordings are fetched from where they may be, whole or not at all, and nobody on the way can hold us."""

import gzip
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from shared.errors import (
    FetchBlocked,
    FetchFailed,
    FetchRefused,
    FetchTimeout,
    FetchTooLarge,
    JobError,
)
from shared.source import Source
from tests.worker.hostile_urls import ALL_URLS
from tests.worker.receiver import Answer, Receiver, http, receiver
from tests.worker.test_http_guard import LOOPBACK, PUBLIC, connected, drip, resolver
from worker.addresses import unwrapped
from worker.fetcher import MOST_HOPS, PACE_BYTES, GuardedFetcher
from worker.http_guard import GuardedSender

__all__ = ["connected"]

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
SOUND = bytes(range(256)) * 40
METADATA = "http://169.254.169.254/latest/meta-data/"


def fetcher(
    timeout_s: float = 5.0, max_bytes: int = 2**20, allow: Sequence[object] = LOOPBACK, **more: object
) -> GuardedFetcher:
    return GuardedFetcher(timeout_s, max_bytes, allow, **({"ssl_context": NO_TLS} | more))


def get(url: str, headers: Mapping[str, str] | None = None, by: GuardedFetcher | None = None) -> bytes:
    with (by or fetcher()).fetch(Source(url, headers or {})) as download:
        return b"".join(download.chunks)


def failure(url: str, by: GuardedFetcher | None = None) -> type[JobError]:
    with pytest.raises(JobError) as raised:
        get(url, by=by)
    return raised.type


@pytest.fixture(scope="module")
def canary() -> Iterator[Receiver]:
    """On loopback, which is not to be gone to."""
    with receiver() as listening:
        yield listening


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every address that a socket was opened to; none but loopback is really gone to."""
    addresses: list[str] = []
    connect = socket.create_connection

    def noted(address: tuple[str, int], *rest: float) -> socket.socket:
        addresses.append(address[0])
        if not unwrapped(ip_address(address[0])).is_loopback:
            raise ConnectionRefusedError
        return connect(address, *rest)

    monkeypatch.setattr(socket, "create_connection", noted)
    return addresses


def test_a_recording_is_fetched_with_the_client_s_own_headers() -> None:
    with receiver(http(200, SOUND)) as server:
        with fetcher().fetch(
            Source(server.url("127.0.0.1", "/talk.wav?sig=1"), {"Authorization": "Bearer x"})
        ) as download:
            assert download.size_bytes == len(SOUND)
            assert b"".join(download.chunks) == SOUND

        head = server.requests[0].lower()
        assert head.startswith(b"get /talk.wav?sig=1 http/1.1\r\n")
        assert b"\r\nauthorization: bearer x\r\n" in head
        assert b"\r\naccept-encoding: identity\r\n" in head


def test_a_recording_without_a_length_is_fetched_to_its_end() -> None:
    with receiver(b"HTTP/1.1 200 OK\r\n\r\n" + SOUND) as server:
        assert get(server.url()) == SOUND


def test_no_address_of_two_hundred_and_fifty_leads_inside(canary: Receiver, opened: list[str]) -> None:
    """Both uses of the guard, each with every spelling."""
    port, hook = str(canary.port), GuardedSender(5.0, ssl_context=NO_TLS)
    urls = [url.replace("{p}", port) for url in ALL_URLS]

    kinds = [failure(url, fetcher(allow=())) for url in urls]
    outcomes = [hook.send(url, {}, b"{}").error for url in urls]

    assert len(urls) >= 250
    assert set(kinds) <= {FetchBlocked, FetchFailed}
    assert kinds.count(FetchBlocked) >= 200
    assert set(outcomes) <= {"blocked_address", "invalid_url", "dns"}
    assert (opened, canary.connections) == ([], 0)


@pytest.mark.parametrize("number", range(20))
def test_good_addresses_all_pass(number: int, opened: list[str]) -> None:
    public = f"{(1, 8, 9, 23, 34)[number % 5]}.{number + 1}.1.1"
    by = fetcher(allow=(), resolve=resolver(public, f"2606:4700::{number + 1}"))

    assert failure(f"http://media-{number}.example/a.wav?b={number}", by) is FetchFailed
    assert opened == [public, f"2606:4700::{number + 1}"]


CHAINS = [
    *([target] for target in ("http://127.0.0.1:{c}/", "http://localhost:{c}/", "http://[::1]:{c}/")),
    *([target] for target in (METADATA, "http://10.0.0.1/", "http://[fd00::1]/", "http://0x7f.1:{c}/")),
    *([target] for target in ("//127.0.0.1:{c}/", "http://[::ffff:127.0.0.1]:{c}/")),
    ["http://2130706433:{c}/"],
    *([target] for target in ("file:///etc/passwd", "gopher://127.0.0.1:{c}/", "s3://recordings/x")),
    *([target] for target in ("http://u:p@127.0.0.1:{c}/", "http://[64:ff9b::7f00:1]:{c}/", "http://[")),
    ["{s}/one", "http://127.0.0.1:{c}/"],
    ["{s}/one", "/two", METADATA],
    ["/one", "/two", "/three", "/four"],
    ["{s}/one"] * 9,
]


@pytest.mark.parametrize("chain", CHAINS)
def test_no_chain_of_redirects_leads_inside(
    chain: list[str], canary: Receiver, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first server may be gone to: it is the one network that is allowed."""
    before = canary.connections
    with receiver(host="127.0.0.2") as server:
        base = f"http://127.0.0.2:{server.port}"
        targets = [target.replace("{s}", base).replace("{c}", str(canary.port)) for target in chain]
        server.answers = [
            *(http(302 + number % 2 * 5, location=target) for number, target in enumerate(targets)),
            http(200, SOUND),
        ]

        kind = failure(f"{base}/", fetcher(allow=(ip_network("127.0.0.2/32"),)))

    assert kind in (FetchBlocked, FetchRefused, FetchFailed)
    assert set(opened) == {"127.0.0.2"}
    assert len(opened) <= MOST_HOPS + 1
    assert canary.connections == before


def test_the_chains_are_twenty() -> None:
    assert len(CHAINS) >= 20


def test_a_redirect_is_followed_three_times() -> None:
    answers = [http(status, location="/next") for status in (301, 307, 303)]
    with receiver(*answers, http(200, SOUND)) as server:
        assert get(server.url()) == SOUND
        assert server.connections == MOST_HOPS + 1


def test_headers_stay_with_their_server() -> None:
    """A redirect within it keeps them; another port is another server, and once gone they stay away."""
    secret = {"Authorization": "Bearer secret", "Cookie": "a=secret"}
    with receiver() as first, receiver() as second:
        first.answers = [http(302, location="/inner"), http(302, location=second.url()), http(200, SOUND)]
        second.answers = [http(302, location=first.url())]

        assert get(first.url(), secret) == SOUND

        told = [b"secret" in request for request in (*first.requests, *second.requests)]
        assert told == [True, True, False, False]


def test_the_name_is_asked_for_once_in_each_hop(opened: list[str]) -> None:
    """Whoever answers differently the second time is not asked a second time."""
    asked: list[str] = []
    answers = iter([["127.0.0.1"], ["10.0.0.1"], ["127.0.0.1"]])

    def rebinding(host: str, port: int) -> list[str]:
        asked.append(host)
        return next(answers)

    with receiver(http(302, location="/again"), http(200, SOUND)) as server:
        by = fetcher(resolve=rebinding)
        assert failure(server.url("rebind.example"), by) is FetchBlocked

    assert asked == ["rebind.example"] * 2
    assert opened == ["127.0.0.1"]


def test_the_environment_chooses_no_proxy(canary: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    before = canary.connections
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, canary.url(path=""))
    with receiver(http(200, SOUND)) as server:
        assert get(server.url()) == SOUND
    assert canary.connections == before


def test_a_public_server_is_reached_on_the_usual_ports_only(opened: list[str]) -> None:
    by = fetcher(allow=(), resolve=resolver(PUBLIC))

    assert failure("http://example.com:6379/", by) is FetchBlocked
    assert opened == []


@pytest.mark.parametrize(
    "answer",
    [
        http(200, b"x" * 2000),
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 2000,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 2000 + b"0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999\r\n\r\nxx",
    ],
)
def test_more_than_is_taken_is_refused(answer: bytes) -> None:
    with receiver(answer) as server:
        assert failure(server.url(), fetcher(max_bytes=1000)) is FetchTooLarge


def test_a_recording_without_end_is_read_no_further_than_its_bound() -> None:
    sent = [0]

    def endless(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            sent[0] += connection.send(bytes(16_384))

    with receiver(endless) as server:
        assert failure(server.url(), fetcher(max_bytes=100_000)) is FetchTooLarge
    # The kernel's own buffers take some more than we read.
    assert sent[0] < 8_000_000


@pytest.mark.parametrize("first", [b"", b"HTTP/1.1 200 OK\r\nx: ", b"HTTP/1.1 200 OK\r\n\r\n"])
@pytest.mark.parametrize("bounds", [{"timeout_s": 0.3}, {"timeout_s": 60.0, "pace_s": 0.3}])
def test_a_server_that_drips_is_left(first: bytes, bounds: dict[str, float]) -> None:
    """By the time for all of it, and by the pace at which some of it has to come."""
    closing = threading.Event()
    with receiver(drip(first, b"z", closing)) as server:
        assert failure(server.url(), fetcher(**bounds)) is FetchTimeout  # type: ignore[arg-type]
        closing.set()


def test_a_large_recording_may_take_longer_than_the_pace_for_one_piece() -> None:
    pieces = 8
    goes_on = threading.Semaphore(1)

    def steady(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (pieces * PACE_BYTES))
        for _ in range(pieces):
            goes_on.acquire()
            connection.sendall(bytes(PACE_BYTES))

    now = [0.0]
    with receiver(steady) as server:
        by = fetcher(max_bytes=2**24, timeout_s=100.0, pace_s=10.0, clock=lambda: now[0])
        with by.fetch(Source(server.url())) as download:
            got, ready = 0, PACE_BYTES
            for chunk in download.chunks:
                got += len(chunk)
                if got >= ready:
                    ready += PACE_BYTES
                    now[0] += 8.0
                    goes_on.release()

    assert got == pieces * PACE_BYTES


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (http(404), FetchRefused),
        (http(403, b"/etc/secret"), FetchRefused),
        (http(206, SOUND), FetchRefused),
        (http(204), FetchRefused),
        (http(302), FetchRefused),
        (http(500), FetchFailed),
        (http(503), FetchFailed),
        (http(429), FetchFailed),
        (b"SSH-2.0-OpenSSH_9.9\r\n", FetchFailed),
        (b"", FetchFailed),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\nonly this", FetchFailed),
        (http(200, gzip.compress(bytes(10_000_000)), content_encoding="gzip"), FetchRefused),
        (http(200, b"x", content_encoding="br"), FetchRefused),
    ],
)
def test_what_a_server_answers_has_a_name(answer: bytes | Answer, kind: type[JobError]) -> None:
    with receiver(answer) as server:
        assert failure(server.url()) is kind


def test_what_a_server_says_is_not_repeated() -> None:
    with receiver(http(403, b"top secret")) as server, pytest.raises(FetchRefused) as raised:
        get(server.url())

    assert raised.value.detail == "The server answered 403."


@pytest.mark.parametrize(("asked", "pause_s"), [("7", 7.0), ("99999", 300.0)])
def test_a_server_may_ask_for_a_pause(asked: str, pause_s: float) -> None:
    with receiver(http(503, retry_after=asked)) as server, pytest.raises(FetchFailed) as raised:
        get(server.url())

    assert raised.value.retry_after_s == pause_s


def test_nobody_home_and_no_such_name_are_told_apart() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
    with pytest.raises(FetchFailed, match="reached"):
        get(url)
    with pytest.raises(FetchFailed, match="name"):
        get("http://" + "a" * 64 + ".example/")


def test_secrets_of_a_source_are_not_in_its_words() -> None:
    source = Source("https://media.example/a.wav?sig=marker", {"Authorization": "marker"})

    assert "marker" not in f"{source!r} {source} {source.shown_url} {source.name}"
    assert Source.from_json(source.to_json()) == source


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/talks/one.wav?sig=1", "one.wav"),
        ("/talks/%C9%94k%C9%94m.wav", "ɔkɔm.wav"),
        ("/..%2f..%2fetc%2fpasswd", "passwd"),
        ("/%0d%0ax.wav", "x.wav"),
        ("/", "audio"),
        ("", "audio"),
    ],
)
def test_the_name_is_the_last_of_the_path(path: str, name: str) -> None:
    assert Source(f"https://media.example{path}").name == name


def test_connections_are_closed_on_the_way() -> None:
    """A hop that is over holds nothing; one at a time is open."""
    ends: list[bytes] = []

    def hop(connection: socket.socket) -> None:
        connection.sendall(http(302, location="/next"))
        ends.append(connection.recv(1))

    answers: list[Callable[[socket.socket], None] | bytes] = [hop, hop, http(200, SOUND)]
    with ExitStack() as held:
        server = held.enter_context(receiver(*answers))
        assert get(server.url()) == SOUND
    assert ends == [b"", b""]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a local authority (`ca.pem`), and key and certificate of media.example that it signed."""
    folder = tmp_path_factory.mktemp("authority")
    made = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=Local"
    asked = "openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=media.example"
    signed = "openssl x509 -req -in asked.pem -CA ca.pem -CAkey ca.key -days 2 -extfile names -out cert.pem"
    (folder / "names").write_text("subjectAltName=DNS:media.example")
    for command in (f"{made} -keyout ca.key -out ca.pem", f"{asked} -keyout key.pem -out asked.pem", signed):
        try:
            subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
        except FileNotFoundError:
            pytest.skip("openssl is not installed")
    return folder


@pytest.mark.parametrize(
    ("host", "is_trusted", "kind"),
    [
        ("media.example", True, None),
        ("other.example", True, FetchFailed),
        ("media.example", False, FetchFailed),
        ("127.0.0.1", True, FetchFailed),
    ],
)
def test_a_server_proves_its_name_to_an_authority_we_know(
    host: str, is_trusted: bool, kind: type[JobError] | None, authority: Path
) -> None:
    """The name goes with the handshake, although the connection goes to a number."""
    names: list[str | None] = []
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own.load_cert_chain(authority / "cert.pem", authority / "key.pem")
    own.sni_callback = lambda sock, name, context: names.append(name)

    def serve(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection:
            try:
                with own.wrap_socket(connection, server_side=True) as secured:
                    secured.recv(65536)
                    secured.sendall(http(200, SOUND))
            except OSError:
                return

    trusted = ssl.create_default_context(cafile=str(authority / "ca.pem")) if is_trusted else NO_TLS
    by = fetcher(resolve=resolver("127.0.0.1"), ssl_context=trusted)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,), daemon=True)
        thread.start()
        url = f"https://{host}:{listening.getsockname()[1]}/one.wav"
        if kind is None:
            assert get(url, by=by) == SOUND
        else:
            assert failure(url, by) is kind
        thread.join(5)

    assert names == [None if host[0].isdigit() else host]
