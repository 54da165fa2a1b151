"""How the service is talked to, without a socket: flows say what to send, when to wait and what to tell, and
are answered. `client.py` and `aio.py` carry them out; there is nothing to decide in there."""

import json
import random
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from ananse_client.errors import Problem, ServiceError, Unreachable, error_of
from ananse_client.recordings import Form

T = TypeVar("T")

_AGAIN_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504, 507})


@dataclass(frozen=True, slots=True)
class Send:
    """A request. `is_safe` says that sent twice it does no more than once. With `listens` its answer is read
    line by line, by `Listen`."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    json: Mapping[str, Any] | None = None
    form: Form | None = None
    is_safe: bool = True
    timeout_s: float | None = None
    listens: bool = False


@dataclass(frozen=True, slots=True)
class Pause:
    seconds: float


@dataclass(frozen=True, slots=True)
class Listen:
    """Is answered with the next line, None at the end."""


@dataclass(frozen=True, slots=True)
class Tell:
    """Something for the caller, in the middle of a flow."""

    value: Any


@dataclass(frozen=True, slots=True)
class Reply:
    """`headers` have small letters; `text` is empty when it is listened to."""

    status: int
    headers: Mapping[str, str]
    text: str = ""


Effect = Send | Pause | Listen | Tell
Flow = Generator[Effect, Any, T]
"""`Send` is answered with a Reply, `Listen` with a line or None; both may be answered with Unreachable."""


@dataclass(frozen=True, slots=True)
class Patience:
    """`retries` are the times a request is sent again. A server that asks for a longer pause than `longest_s`
    is not waited for."""

    retries: int = 5
    first_s: float = 0.5
    longest_s: float = 120.0
    chance: Callable[[], float] = random.random
    clock: Callable[[], float] = time.monotonic

    def pause_s(self, attempt: int, asked_s: float | None) -> float:
        """Grows, and differs between clients; never shorter than the server asks."""
        own: float = min(self.longest_s, self.first_s * 2**attempt) * (0.5 + 0.5 * self.chance())
        return max(own, (asked_s or 0.0) * (1 + 0.1 * self.chance()))


class Steps(Generic[T]):
    """A flow under way. `effect` is what it wants next; None when done, and `value` is what came of it."""

    value: T

    def __init__(self, flow: Flow[T]) -> None:
        self._flow = flow
        self.effect: Effect | None = None
        self._go(lambda: next(flow))

    def answer(self, with_what: Any) -> None:
        self._go(lambda: self._flow.send(with_what))

    def fail(self, error: Unreachable) -> None:
        self._go(lambda: self._flow.throw(error))

    def _go(self, step: Callable[[], Effect]) -> None:
        try:
            self.effect = step()
        except StopIteration as end:
            self.effect, self.value = None, end.value


def call(patience: Patience, send: Send) -> Flow[Reply]:
    """Sends until there is an answer that is no failure. Raises ServiceError, Unreachable."""
    attempt = 0
    while True:
        error: ServiceError | Unreachable
        try:
            reply: Reply = yield send
        except Unreachable as away:
            # Where no connection came about nothing was done either.
            error, may_repeat, asked_s = away, send.is_safe or isinstance(away, NotConnected), None
        else:
            if reply.status < 400:
                return reply
            error, asked_s = error_of(problem_of(reply)), retry_after_s(reply)
            may_repeat = is_worth_repeating(reply, error, send.is_safe)
        if attempt >= patience.retries or not may_repeat or (asked_s or 0.0) > patience.longest_s:
            raise error
        yield Pause(patience.pause_s(attempt, asked_s))
        attempt += 1


class NotConnected(Unreachable):
    """The request never went out."""


def is_worth_repeating(reply: Reply, error: ServiceError, is_safe: bool) -> bool:
    """A server that says when to come again has done nothing. A wrong key stays wrong."""
    if error.problem.code == "too_many_wrong_keys":
        return False
    if error.problem.code == "incomplete_upload":
        return is_safe
    return reply.status in _AGAIN_STATUSES and (is_safe or "retry-after" in reply.headers)


def problem_of(reply: Reply) -> Problem:
    """The problem document, or what can be told without one: a proxy may have answered."""
    try:
        document = json.loads(reply.text)
        code = str(document["code"])
    except (ValueError, TypeError, KeyError):
        code = {
            401: "unauthorized",
            403: "forbidden",
            404: "not_found",
            413: "too_large",
            429: "rate_limited",
        }.get(reply.status, "unavailable" if reply.status >= 500 else "invalid_request")
        document = {"detail": f"the answer was {reply.status}, and not in the service's own words"}
    return Problem(
        code=code,
        detail=str(document.get("detail") or document.get("title") or ""),
        status=reply.status,
        request_id=str(document.get("request_id") or reply.headers.get("x-request-id", "")),
        retryable=None if reply.status < 500 else reply.status in _AGAIN_STATUSES,
        retry_after_s=retry_after_s(reply),
    )


def retry_after_s(reply: Reply) -> float | None:
    """Seconds; dates, which the service does not send, count as nothing said."""
    try:
        return max(0.0, float(reply.headers["retry-after"]))
    except (KeyError, ValueError):
        return None
