"""A real HTTP receiver on loopback, which answers as a test tells it to."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

Answer = Callable[[socket.socket], None]


def http(status: int, body: bytes = b"", **headers: str) -> bytes:
    """The bytes of an answer; `retry_after="5"` becomes `retry-after: 5`."""
    lines = [f"HTTP/1.1 {status} Whatever", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass
class Receiver:
    """Reads each request whole, keeps it, and gives the next of `answers` (the last one again and again)."""

    answers: list[bytes | Answer]
    server: socket.socket
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    closing: threading.Event = field(default_factory=threading.Event)

    @property
    def port(self) -> int:
        return int(self.server.getsockname()[1])

    def url(self, host: str = "127.0.0.1", path: str = "/hook") -> str:
        return f"http://{host}:{self.port}{path}"

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.server.accept()
            except OSError:
                return
            self.connections += 1
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            with connection:
                connection.settimeout(5)
                try:
                    self._talk(connection, answer)
                except OSError:
                    continue

    def _talk(self, connection: socket.socket, answer: bytes | Answer) -> None:
        received = b""
        while not self._is_whole(received):
            chunk = connection.recv(65536)
            if not chunk:
                return
            received += chunk
        self.requests.append(received)
        if callable(answer):
            answer(connection)
        else:
            connection.sendall(answer)

    @staticmethod
    def _is_whole(received: bytes) -> bool:
        head, end, body = received.partition(b"\r\n\r\n")
        lengths = [line[15:] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        return bool(end) and len(body) >= int(lengths[0] if lengths else 0)


@contextmanager
def receiver(*answers: bytes | Answer, host: str = "127.0.0.1") -> Iterator[Receiver]:
    with socket.create_server((host, 0)) as server:
        made = Receiver(list(answers) or [http(200)], server)
        thread = threading.Thread(target=made.serve, daemon=True)
        thread.start()
        try:
            yield made
        finally:
            made.closing.set()
            # Wakes accept(), which closing the socket alone does not do everywhere.
            server.shutdown(socket.SHUT_RDWR)
            thread.join(timeout=5)
