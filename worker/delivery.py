"""One attempt to hand a webhook to its receiver, and when to try again. Knows no Redis and no Celery."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Protocol

from worker.webhooks import signed_headers

JITTER = 0.2

RETRY_AFTER_STATUSES = frozenset({429, 502, 503, 504})
"""Answers whose wish for a pause is heard."""

RESERVED_HEADERS = frozenset(
    {"connection", "content-length", "content-type", "host", "te", "trailer", "transfer-encoding", "upgrade"}
)
"""What a client's own header may not be: these frame the request or steer it elsewhere."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an attempt: a `status`, or an `error` in one word if no answer was had.

    `answer` is the start of the receiver's words; `retry_after_s` the pause it asked for.
    """

    status: int | None
    duration_s: float
    error: str | None = None
    answer: str = ""
    retry_after_s: float | None = None

    @property
    def delivered(self) -> bool:
        return self.status is not None and 200 <= self.status < 300

    @property
    def gone(self) -> bool:
        """The receiver wants no more of these, ever."""
        return self.status == 410


class Sender(Protocol):
    """Posts a body. Whatever the network does is an Outcome, never an exception."""

    def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Outcome: ...


def post(
    sender: Sender,
    *,
    webhook_id: str,
    body: bytes,
    url: str,
    secrets: Sequence[str],
    auth_header: tuple[str, str] | None,
    now: datetime,
    traceparent: str = "",
) -> Outcome:
    """One attempt. `webhook_id` and `body` are the same in every attempt, so receivers can tell repeats.

    `auth_header` is the client's own; one that would take the place of ours is left out. `traceparent` lets
    the receiver go on with our trace.
    Raises ValueError as `signed_headers` does.
    """
    headers = {"content-type": "application/json", **signed_headers(webhook_id, now, body, secrets)}
    if traceparent:
        headers["traceparent"] = traceparent
    if auth_header is not None:
        name, value = auth_header
        if name.lower() not in RESERVED_HEADERS | headers.keys():
            headers[name] = value
    return sender.send(url, headers, body)


def next_delay_s(
    attempt: int, schedule: Sequence[float], outcome: Outcome, jitter: Callable[[], float]
) -> float | None:
    """Seconds until the attempt after number `attempt`, the first being 1; None to give up.

    Each pause of `schedule` is varied by up to JITTER; `jitter` gives numbers from 0 to 1. A receiver that
    asks for a longer pause gets it, up to the longest of the schedule.
    """
    if outcome.delivered or outcome.gone or attempt > len(schedule):
        return None
    chance = jitter()
    pause = schedule[attempt - 1] * (1 - JITTER + 2 * JITTER * chance)
    if outcome.status not in RETRY_AFTER_STATUSES or outcome.retry_after_s is None:
        return pause
    asked = min(outcome.retry_after_s, max(schedule))
    # Never earlier than asked, and not all at the same moment.
    return max(pause, asked * (1 + JITTER * chance))


def parse_retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds from a Retry-After header, which holds seconds or a date; None if it says nothing."""
    value = (value or "").strip()
    if value.isascii() and value.isdigit() and len(value) < 10:
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - now).total_seconds())
    except (TypeError, ValueError, OverflowError):
        return None
