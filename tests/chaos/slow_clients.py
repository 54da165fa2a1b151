"""Clients that are slow on purpose: each holds a connection and sends, or reads, one byte a second."""

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

BEAT_S = 1.0
_SMALL_BUFFER = 4096
_PART = b'--cut\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'


@dataclass(frozen=True, slots=True)
class Slowness:
    """What is sent at once; from then on a byte a second is sent, or read where `reads`."""

    opening: bytes
    reads: bool = False


def _upload(body: bytes, kind: str = "audio/wav", framing: str = "Content-Length: 9000000") -> bytes:
    head = f"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\n{framing}\r\n\r\n"
    return head.encode() + body


SLOW: Mapping[str, tuple[Slowness, ...]] = {
    "heads": (
        Slowness(b""),
        Slowness(b"GET /livez HTTP/1.1\r\nHost: x\r\nSlow: "),
        Slowness(b"\r\n\r\n\r\nGET /livez HTTP/1.1\r\n"),
        Slowness(b"GET /livez HTTP/1.1\nHost: x\n\n"),
        Slowness(b"GET /livez HTTP/1.1\r\nHost: x\r\nSlow: " + b"a" * 40_000),
    ),
    "bodies": (
        Slowness(_upload(b"")),
        Slowness(_upload(_PART, "multipart/form-data; boundary=cut")),
        Slowness(_upload(b"fffff\r\n", framing="Transfer-Encoding: chunked")),
        Slowness(b"POST /v1/jobs/job_a/cancel HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"),
    ),
    "begun uploads": (
        Slowness(_upload(bytes(50_000))),
        Slowness(_upload(_PART + bytes(50_000), "multipart/form-data; boundary=cut")),
        Slowness(_upload(b"fffff\r\n" + bytes(50_000), framing="Transfer-Encoding: chunked")),
        Slowness(_upload(b"", framing="Content-Length: 9000000\r\nExpect: 100-continue")),
    ),
    "those who do not hang up": (
        Slowness(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
        Slowness(b"GET / HTTP/9.9\r\n\r\n"),
    ),
}


def slow_reader(path: str) -> Slowness:
    return Slowness(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode(), reads=True)


@contextmanager
def slow_clients(address: tuple[str, int], count: int, *kinds: Slowness) -> Iterator[list[socket.socket]]:
    """`count` connections, the kinds in turn, for as long as the block lasts or the server lets them."""
    done = threading.Event()
    with ExitStack() as held:
        clients = []
        for number in range(count):
            client = held.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER)
            client.settimeout(10)
            client.connect(address)
            # One that is cut while it opens has what it came for.
            with suppress(OSError):
                client.sendall(kinds[number % len(kinds)].opening)
            clients.append((client, kinds[number % len(kinds)]))
        thread = threading.Thread(target=_drip, args=(clients, done), daemon=True)
        thread.start()
        try:
            yield [client for client, _ in clients]
        finally:
            done.set()
            thread.join()


def _drip(clients: list[tuple[socket.socket, Slowness]], done: threading.Event) -> None:
    for client, _ in clients:
        client.setblocking(False)
    while not done.wait(BEAT_S):
        for client, kind in clients:
            with suppress(OSError):
                if kind.reads:
                    client.recv(1)
                else:
                    client.send(b"a")
