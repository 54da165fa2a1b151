"""Gets recordings from addresses that clients gave us: over guarded connections, each hop of a redirect
checked anew, bounded in time, pace and bytes. What is done with them is in `fetching.py`."""

import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import httpx

from shared.errors import FetchBlocked, FetchFailed, FetchRefused, FetchTimeout, FetchTooLarge, JobError
from shared.source import Source
from worker.addresses import Network
from worker.connections import Broken, Budget, Resolver, checked, make_guard, resolve
from worker.delivery import parse_retry_after

MOST_HOPS = 3
PACE_S = 60.0
PACE_BYTES = 2**17
"""So many bytes at least have to come in each PACE_S, as of an upload."""

_FRAMING_BYTES = 2**20
_LONGEST_PAUSE_S = 300.0
_REDIRECTS = (301, 302, 303, 307, 308)
_PASSING = (408, 425, 429)
_RESERVED = frozenset({"accept-encoding", "connection", "content-length", "host", "range", "te", "upgrade"})

_BLOCKED = {
    "invalid_url": "The address is not one that this service goes to.",
    "blocked_address": "The address leads into a network that this service does not go to.",
    "blocked_port": "The address has a port that this service does not go to.",
}
_FAILED = {
    "dns": "The name of the server could not be found.",
    "connect": "The server could not be reached.",
    "tls": "The server could not prove who it is.",
    "connection_lost": "The connection broke off.",
}


@dataclass(frozen=True, slots=True)
class Download:
    """`size_bytes` is what the server says; the chunks are what comes, and never more than is taken."""

    size_bytes: int | None
    chunks: Iterator[bytes]


class Fetcher(Protocol):
    def fetch(self, source: Source) -> AbstractContextManager[Download]:
        """Raises FetchBlocked, FetchFailed, FetchRefused, FetchTimeout, FetchTooLarge; so do the chunks."""
        ...


class GuardedFetcher:
    """From public addresses on the usual ports, and from any port of the networks in `allow`."""

    def __init__(
        self,
        timeout_s: float,
        max_bytes: int,
        allow: Sequence[Network] = (),
        *,
        pace_s: float = PACE_S,
        resolve: Resolver = resolve,
        ssl_context: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._timeout_s = timeout_s
        self._pace_s = pace_s
        self._max_bytes = max_bytes
        self._guard = make_guard(allow, resolve=resolve, ssl_context=ssl_context)
        self._clock = clock

    @contextmanager
    def fetch(self, source: Source) -> Iterator[Download]:
        """`headers` of the source are told to its own server only: another host, port or scheme that a
        redirect leads to gets none of them, nor does what comes after."""
        budget = Budget(self._timeout_s, self._pace_s, self._clock)
        with named(), ExitStack() as held:
            url, headers = checked(source.url), _own(source.headers)
            for _ in range(MOST_HOPS + 1):
                response = held.enter_context(
                    self._guard.stream("GET", url, headers, budget, wire_bytes=self._wire_bytes)
                )
                target = _target(url, response)
                if target is None:
                    yield self._download(response, budget)
                    return
                held.close()
                headers = headers if _origin(target) == _origin(url) else {}
                url = target
            raise FetchRefused("The address leads from one redirect to the next.")

    @property
    def _wire_bytes(self) -> int:
        """Chunks may be framed one by one, and headers come before."""
        return 2 * self._max_bytes + _FRAMING_BYTES

    def _download(self, response: httpx.Response, budget: Budget) -> Download:
        _check(response)
        declared = response.headers.get("content-length", "")
        size_bytes = int(declared) if declared.isascii() and declared.isdigit() else None
        refuse_larger(size_bytes or 0, self._max_bytes)
        return Download(size_bytes, self._chunks(response, budget))

    def _chunks(self, response: httpx.Response, budget: Budget) -> Iterator[bytes]:
        got = paced = 0
        with named():
            for chunk in response.iter_raw():
                got += len(chunk)
                refuse_larger(got, self._max_bytes)
                if got - paced >= PACE_BYTES:
                    paced = got
                    budget.go_on()
                yield chunk


def refuse_larger(size_bytes: int, max_bytes: int) -> None:
    if size_bytes > max_bytes:
        raise FetchTooLarge(f"The limit is {max_bytes} bytes.")


@contextmanager
def named() -> Iterator[None]:
    """Raises errors of jobs for what connections raise."""
    try:
        yield
    except Broken as error:
        raise _named(error.code) from error


def _named(code: str) -> JobError:
    if code in _BLOCKED:
        return FetchBlocked(_BLOCKED[code])
    if code == "timeout":
        return FetchTimeout()
    if code == "too_large":
        return FetchTooLarge()
    return FetchFailed(_FAILED.get(code, "The server does not speak HTTP as it should."))


def _own(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in _RESERVED}


def _target(url: httpx.URL, response: httpx.Response) -> httpx.URL | None:
    """Where a redirect leads; None when the answer is none."""
    location = response.headers.get("location")
    if response.status_code not in _REDIRECTS or location is None:
        return None
    try:
        return checked(str(url.join(location)))
    except (httpx.InvalidURL, ValueError) as error:
        raise FetchRefused("The address leads to one that cannot be read.") from error


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    """httpx leaves out a port that is the scheme's own."""
    return url.scheme, url.host, url.port


def _check(response: httpx.Response) -> None:
    status = response.status_code
    if status in _PASSING or status >= 500:
        asked_s = parse_retry_after(response.headers.get("retry-after"), datetime.now(UTC))
        raise FetchFailed(
            f"The server answered {status}.",
            retry_after_s=None if asked_s is None else min(asked_s, _LONGEST_PAUSE_S),
        )
    if status != 200:
        raise FetchRefused(f"The server answered {status}.")
    # Nobody asked for it, and what it unpacks to has no bound.
    if response.headers.get("content-encoding", "identity").lower() not in ("", "identity"):
        raise FetchRefused("The server sends the recording compressed, which was not asked for.")
