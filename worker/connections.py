"""Connections that cannot be led inside: what every request to an address of a client's goes through.

The host is resolved once, every address it has is checked as a number, and the socket is opened to a checked
address: what the URL looks like does not matter, and there is no second look-up to lie to. Every wait ends
with the budget. See docs/adr/0004-one-guarded-http-client.md.
"""

import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import httpcore
import httpx

from worker.addresses import Address, Network, is_in, is_public, unwrapped

Resolver = Callable[[str, int], Sequence[str]]
"""Host and port to all numeric addresses; raises OSError."""

PORTS = frozenset({80, 443})
CONNECT_S = 5.0


class Broken(Exception):
    """The attempt is over. `code`: invalid_url, blocked_address, blocked_port, dns, connect, tls, timeout,
    too_large, protocol, connection_lost, invalid_request."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def resolve(host: str, port: int) -> list[str]:
    """All addresses the system knows for `host`."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[4][0]) for address in found))


class Budget:
    """When an attempt must be over, whatever it is waiting for; and, with `pace_s`, when it must have come
    on since the last `go_on`: who sends a byte now and then holds nobody for long."""

    def __init__(
        self, timeout_s: float, pace_s: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._ends_at = clock() + timeout_s
        self._pace_s = pace_s
        self.go_on()

    def go_on(self) -> None:
        self._stalls_at = self._clock() + self._pace_s if self._pace_s else self._ends_at

    def left_s(self) -> float:
        left_s = min(self._ends_at, self._stalls_at) - self._clock()
        if left_s <= 0:
            raise Broken("timeout")
        return left_s


@dataclass(frozen=True, slots=True)
class Guard:
    """Public addresses on the usual ports, and the networks in `allow` on any."""

    ssl_context: ssl.SSLContext
    allow: tuple[Network, ...] = ()
    resolve: Resolver = resolve

    @contextmanager
    def stream(
        self,
        method: str,
        url: httpx.URL,
        headers: Mapping[str, str],
        budget: Budget,
        *,
        content: bytes | None = None,
        wire_bytes: int,
    ) -> Iterator[httpx.Response]:
        """One exchange over one connection: no proxy of the environment, no redirect followed, nothing
        unpacked. No more than `wire_bytes` are read from it, headers, framing and interim answers included.

        Raises Broken, and so does the response's body, inside of the block.
        """
        own = {"user-agent": "Ananse", "accept-encoding": "identity", "connection": "close"}
        transport = _Transport(_Backend(self, budget, wire_bytes), self.ssl_context)
        with (
            translated(),
            httpx.Client(
                transport=transport, trust_env=False, follow_redirects=False, timeout=None
            ) as client,
            client.stream(method, url, headers={**own, **headers}, content=content) as response,
        ):
            yield response


def make_guard(
    allow: Sequence[Network] = (),
    *,
    resolve: Resolver = resolve,
    ssl_context: ssl.SSLContext | None = None,
) -> Guard:
    """Trusts the usual authorities, unless it is given others: not those that the environment names."""
    return Guard(ssl_context or httpx.create_ssl_context(trust_env=False), tuple(allow), resolve)


@contextmanager
def translated() -> Iterator[None]:
    """Raises Broken for whatever the HTTP libraries raise inside."""
    try:
        yield
    except (httpcore.RemoteProtocolError, httpx.HTTPError, httpx.InvalidURL) as error:
        # httpx reads a Location header even where it is not to be followed.
        raise Broken("protocol") from error
    except httpcore.NetworkError as error:
        raise Broken("connection_lost") from error
    except (httpcore.LocalProtocolError, UnicodeError) as error:
        raise Broken("invalid_request") from error


def checked(url: str) -> httpx.URL:
    """The address, judged by its text alone: scheme, a host, no user name. Raises Broken."""
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, UnicodeError) as error:
        raise Broken("invalid_url") from error
    authority = re.split(r"[/?#]", url.partition("//")[2], maxsplit=1)[0]
    if parsed.scheme not in ("http", "https") or not parsed.host or "@" in authority:
        raise Broken("invalid_url")
    return parsed


class _Backend(httpcore.NetworkBackend):
    """Opens sockets for httpcore, to checked addresses only. The name stays with the request, for its Host
    header and for TLS."""

    def __init__(self, guard: Guard, budget: Budget, wire_bytes: int) -> None:
        self._allow = guard.allow
        self._resolve = guard.resolve
        self._budget = budget
        self._wire_bytes = wire_bytes

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        for address in self._checked_addresses(host, port):
            try:
                wait_s = min(CONNECT_S, self._budget.left_s())
                return _Stream(
                    socket.create_connection((str(address), port), wait_s), self._budget, self._wire_bytes
                )
            except OSError:
                continue
        raise Broken("connect")

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.NetworkStream:
        raise Broken("blocked_address")

    def _checked_addresses(self, host: str, port: int) -> list[Address]:
        """All of the host's addresses; a single bad one among them condemns the host."""
        addresses = [unwrapped(address) for address in self._addresses(host, port)]
        strangers = [address for address in addresses if not is_in(address, self._allow)]
        if not all(is_public(address) for address in strangers):
            raise Broken("blocked_address")
        if strangers and port not in PORTS:
            raise Broken("blocked_port")
        return addresses

    def _addresses(self, host: str, port: int) -> list[Address]:
        """Looked up in a thread of its own, because the system's look-up cannot be told when to stop."""
        found: Future[Sequence[str]] = Future()

        def look_up() -> None:
            try:
                found.set_result(self._resolve(host, port))
            except (OSError, UnicodeError) as error:
                found.set_exception(error)

        threading.Thread(target=look_up, name="resolve", daemon=True).start()
        try:
            addresses = [ip_address(address) for address in found.result(self._budget.left_s())]
        except TimeoutError as error:
            raise Broken("timeout") from error
        except (OSError, ValueError) as error:
            raise Broken("dns") from error
        if not addresses:
            raise Broken("dns")
        return addresses


class _Stream(httpcore.NetworkStream):
    """A socket whose every wait ends with the attempt, and which gives no more than `unread` bytes."""

    def __init__(self, sock: socket.socket, budget: Budget, unread: int) -> None:
        self._socket = sock
        self._budget = budget
        self._unread = unread

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._unread <= 0:
            raise Broken("too_large")
        try:
            self._socket.settimeout(self._budget.left_s())
            received = self._socket.recv(min(max_bytes, self._unread))
        except TimeoutError as error:
            raise Broken("timeout") from error
        except OSError as error:
            raise httpcore.ReadError(str(error)) from error
        self._unread -= len(received)
        return received

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        try:
            while buffer:
                self._socket.settimeout(self._budget.left_s())
                buffer = buffer[self._socket.send(buffer) :]
        except TimeoutError as error:
            raise Broken("timeout") from error
        except OSError as error:
            # httpcore then looks for an answer that was sent before the request was read to its end.
            raise httpcore.WriteError(str(error)) from error

    def close(self) -> None:
        self._socket.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        try:
            self._socket.settimeout(self._budget.left_s())
            secured = ssl_context.wrap_socket(self._socket, server_hostname=server_hostname)
        except TimeoutError as error:
            self.close()
            raise Broken("timeout") from error
        except (OSError, ValueError) as error:
            self.close()
            raise Broken("tls") from error
        return _Stream(secured, self._budget, self._unread)

    def get_extra_info(self, info: str) -> Any:
        """Asked by httpcore for the TLS object only, to learn the protocol agreed on."""
        return self._socket if info == "ssl_object" and isinstance(self._socket, ssl.SSLSocket) else None


class _Transport(httpx.BaseTransport):
    """httpx over one connection of our backend. httpx's own transport takes no backend."""

    def __init__(self, backend: httpcore.NetworkBackend, ssl_context: ssl.SSLContext) -> None:
        self._pool = httpcore.ConnectionPool(
            ssl_context=ssl_context,
            max_connections=1,
            max_keepalive_connections=0,
            network_backend=backend,
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        answer = self._pool.handle_request(
            httpcore.Request(
                method=request.method,
                url=httpcore.URL(
                    scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
                ),
                headers=request.headers.raw,
                content=request.stream,
                extensions=request.extensions,
            )
        )
        return httpx.Response(answer.status, headers=answer.headers, stream=_Body(answer))

    def close(self) -> None:
        self._pool.close()


class _Body(httpx.SyncByteStream):
    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        return self._answer.iter_stream()

    def close(self) -> None:
        self._answer.close()
