"""Sends webhooks to addresses that clients gave us, over guarded connections. Everything a receiver can draw
out (time, bytes, redirects) is bounded."""

import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

import httpcore
import httpx

from worker.addresses import Network
from worker.connections import Broken, Budget, Resolver, checked, make_guard, resolve
from worker.delivery import Outcome, parse_retry_after

ANSWER_BYTES = 64 * 1024
"""No more of an answer's body is read than this."""
WIRE_BYTES = 2 * ANSWER_BYTES
"""No more is read from one connection, headers, framing and interim answers included."""
LOGGED_BYTES = 1024


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
        self._guard = make_guard(allow, resolve=resolve, ssl_context=ssl_context)
        self._clock = clock

    def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
        """Posts `body`. Errors are the codes of Broken."""
        started = self._clock()
        budget = Budget(self._timeout_s, clock=self._clock)
        try:
            status, retry_after_s, answer = self._exchange(checked(url), headers, body, budget)
        except Broken as error:
            return Outcome(None, self._clock() - started, error.code)
        return Outcome(status, self._clock() - started, None, answer, retry_after_s)

    def _exchange(
        self, url: httpx.URL, headers: Mapping[str, str], body: bytes, budget: Budget
    ) -> tuple[int, float | None, str]:
        """Status, wished pause and start of the answer."""
        with self._guard.stream(
            "POST", url, headers, budget, content=body, wire_bytes=WIRE_BYTES
        ) as response:
            wish = parse_retry_after(response.headers.get("retry-after"), datetime.now(UTC))
            return response.status_code, wish, _start_of(response)


def _start_of(response: httpx.Response) -> str:
    """The start of the body. The status has been had by now, so a body that breaks off changes nothing."""
    answer = bytearray()
    try:
        for chunk in response.iter_raw():
            answer += chunk
            if len(answer) >= ANSWER_BYTES:
                break
    except (Broken, httpcore.NetworkError, httpcore.RemoteProtocolError):
        pass
    return bytes(answer[:LOGGED_BYTES]).decode(errors="replace")
