"""The one HTTP client that goes to addresses a client gave us, and it cannot be led inside.

The host is resolved once, every address it has is checked as a number, and the socket is opened to a checked
address: what the URL looks like does not matter, and there is no second look-up to lie to. Everything a
receiver can draw out (time, bytes, redirects) is bounded. See docs/adr/0004-one-guarded-http-client.md.
"""

import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

import httpcore
import httpx

from worker.delivery import Outcome, parse_retry_after

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Resolver = Callable[[str, int], Sequence[str]]
"""Host and port to all numeric addresses; raises OSError."""

PORTS = frozenset({80, 443})
CONNECT_S = 5.0
ANSWER_BYTES = 64 * 1024
"""No more of an answer's body is read than this."""
WIRE_BYTES = 2 * ANSWER_BYTES
"""No more is read from one connection, headers, framing and interim answers included."""
LOGGED_BYTES = 1024

GLOBAL_UNICAST_V6 = IPv6Network("2000::/3")
"""All of IPv6 that is in use between networks. Outside lie loopback, link-local, site-local (fec0::/10),
IPv4-compatible (::/96), NAT64 (64:ff9b::/96, 64:ff9b:1::/48), segment routing (5f00::/16) and multicast."""

REFUSED: tuple[Network, ...] = tuple(
    ip_network(network)
    for network in (
        "192.0.0.0/24",  # protocol assignments, a few of which Python calls global
        "192.88.99.0/24",  # 6to4 relays
        "2001::/23",  # Teredo (2001::/32) and other assignments, some global to newer Pythons
        "2002::/16",  # 6to4: an IPv4 address in disguise
        "3fff::/20",  # documentation
    )
)
"""Global by Python's book, but no place for a receiver."""


class _Broken(Exception):
    """The attempt is over; `code` is the Outcome's error."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def resolve(host: str, port: int) -> list[str]:
    """All addresses the system knows for `host`."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[4][0]) for address in found))


def unwrapped(address: Address) -> Address:
    """The IPv4 address inside an IPv4-mapped one, else the address itself."""
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def is_public(address: Address) -> bool:
    """Whether strangers may be reached there. `address` is unwrapped."""
    if isinstance(address, IPv6Address) and address not in GLOBAL_UNICAST_V6:
        return False
    return address.is_global and not address.is_multicast and not _is_in(address, REFUSED)


def _is_in(address: Address, networks: Iterable[Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)


@dataclass(frozen=True, slots=True)
class _Budget:
    """When the attempt must be over, whatever it is waiting for."""

    ends_at: float
    clock: Callable[[], float]

    def left_s(self) -> float:
        left_s = self.ends_at - self.clock()
        if left_s <= 0:
            raise _Broken("timeout")
        return left_s


class GuardedSender:
    """Sends to public addresses on the usual ports, and to any port of the networks in `allow`.

    One attempt takes at most `timeout_s`, name look-up included. Redirects are answers, not orders.
    """

    def __init__(
        self,
        timeout_s: float,
        allow: Sequence[Network] = (),
        *,
        resolve: Resolver = resolve,
        ssl_context: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._timeout_s = timeout_s
        self._allow = tuple(allow)
        self._resolve = resolve
        self._ssl_context = ssl_context or httpx.create_ssl_context(trust_env=False)
        self._clock = clock

    def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
        """Posts `body`. Errors: invalid_url, blocked_address, blocked_port, dns, connect, tls, timeout,
        too_large, protocol, connection_lost, invalid_request."""
        started = self._clock()
        budget = _Budget(started + self._timeout_s, self._clock)
        try:
            status, retry_after_s, answer = self._exchange(_checked(url), headers, body, budget)
        except _Broken as error:
            return Outcome(None, self._clock() - started, error.code)
        return Outcome(status, self._clock() - started, None, answer, retry_after_s)

    def _exchange(
        self, url: httpx.URL, headers: Mapping[str, str], body: bytes, budget: _Budget
    ) -> tuple[int, float | None, str]:
        """Status, wished pause and start of the answer."""
        transport = _Transport(_Backend(self._allow, self._resolve, budget), self._ssl_context)
        own = {"user-agent": "Ananse", "accept-encoding": "identity", "connection": "close"}
        try:
            with (
                httpx.Client(
                    transport=transport, trust_env=False, follow_redirects=False, timeout=None
                ) as client,
                client.stream("POST", url, headers={**own, **headers}, content=body) as response,
            ):
                wish = parse_retry_after(response.headers.get("retry-after"), datetime.now(UTC))
                return response.status_code, wish, _start_of(response)
        except (httpcore.RemoteProtocolError, httpx.HTTPError, httpx.InvalidURL) as error:
            # httpx reads a Location header even where it is not to be followed.
            raise _Broken("protocol") from error
        except httpcore.NetworkError as error:
            raise _Broken("connection_lost") from error
        except (httpcore.LocalProtocolError, UnicodeError) as error:
            raise _Broken("invalid_request") from error


def _checked(url: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, UnicodeError) as error:
        raise _Broken("invalid_url") from error
    authority = re.split(r"[/?#]", url.partition("//")[2], maxsplit=1)[0]
    if parsed.scheme not in ("http", "https") or not parsed.host or "@" in authority:
        raise _Broken("invalid_url")
    return parsed


def _start_of(response: httpx.Response) -> str:
    """The start of the body. The status has been had by now, so a body that breaks off changes nothing."""
    answer = bytearray()
    try:
        for chunk in response.iter_raw():
            answer += chunk
            if len(answer) >= ANSWER_BYTES:
                break
    except (_Broken, httpcore.NetworkError, httpcore.RemoteProtocolError):
        pass
    return bytes(answer[:LOGGED_BYTES]).decode(errors="replace")


class _Backend(httpcore.NetworkBackend):
    """Opens sockets for httpcore, to checked addresses only. The name stays with the request, for its Host
    header and for TLS."""

    def __init__(self, allow: tuple[Network, ...], resolve: Resolver, budget: _Budget) -> None:
        self._allow = allow
        self._resolve = resolve
        self._budget = budget

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
                return _Stream(socket.create_connection((str(address), port), wait_s), self._budget)
            except OSError:
                continue
        raise _Broken("connect")

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.NetworkStream:
        raise _Broken("blocked_address")

    def _checked_addresses(self, host: str, port: int) -> list[Address]:
        """All of the host's addresses; a single bad one among them condemns the host."""
        addresses = [unwrapped(address) for address in self._addresses(host, port)]
        strangers = [address for address in addresses if not _is_in(address, self._allow)]
        if not all(is_public(address) for address in strangers):
            raise _Broken("blocked_address")
        if strangers and port not in PORTS:
            raise _Broken("blocked_port")
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
            raise _Broken("timeout") from error
        except (OSError, ValueError) as error:
            raise _Broken("dns") from error
        if not addresses:
            raise _Broken("dns")
        return addresses


class _Stream(httpcore.NetworkStream):
    """A socket whose every wait ends with the attempt, and which gives no more than WIRE_BYTES."""

    def __init__(self, sock: socket.socket, budget: _Budget, unread: int = WIRE_BYTES) -> None:
        self._socket = sock
        self._budget = budget
        self._unread = unread

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._unread <= 0:
            raise _Broken("too_large")
        try:
            self._socket.settimeout(self._budget.left_s())
            received = self._socket.recv(min(max_bytes, self._unread))
        except TimeoutError as error:
            raise _Broken("timeout") from error
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
            raise _Broken("timeout") from error
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
            raise _Broken("timeout") from error
        except (OSError, ValueError) as error:
            self.close()
            raise _Broken("tls") from error
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
