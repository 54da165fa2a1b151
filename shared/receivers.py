"""Receivers of webhooks that fail: since when, and which of them are not asked any more.

A receiver is a URL that a tenant named. What is known of one is noted by the scripts that end an attempt, and
forgotten when it takes a message.
"""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit, urlunsplit

from shared.ledger import Claim
from shared.redis_store import RedisStore

_MOST = 1000


@dataclass(frozen=True, slots=True)
class Receiver:
    """`reason` is `gone` or `failing`, of one that is disabled. `url` is without its query, which may hold
    secrets."""

    tenant: str
    url: str
    failing_since: datetime | None
    disabled_at: datetime | None
    reason: str


class Receivers:
    def __init__(self, store: RedisStore) -> None:
        self._store = store

    def is_disabled(self, claim: Claim) -> bool:
        """Whether the receiver of this delivery is not to be asked."""
        key = self._store.key
        with self._store.guarded():
            name = self._store.client.hget(key("step", claim.job_id, claim.step), "receiver")
            return bool(name and self._store.client.hexists(key("receiver", name), "disabled_at"))

    def failing(self) -> tuple[Receiver, ...]:
        """Those that failed last, disabled or not yet; who has failed longest comes first."""
        with self._store.guarded():
            names: list[str] = self._store.client.zrange(self._store.key("receivers"), 0, _MOST - 1)
            pipe = self._store.client.pipeline(transaction=False)
            for name in names:
                pipe.hgetall(self._store.key("receiver", name))
            records: list[dict[str, str]] = pipe.execute()
            forgotten = [name for name, record in zip(names, records, strict=True) if not record]
            if forgotten:
                self._store.client.zrem(self._store.key("receivers"), *forgotten)
        return tuple(_receiver(record) for record in records if record)

    def enable(self, tenant: str, url: str) -> bool:
        """Asks it again with the next delivery. False when it was not known to fail."""
        name = f"{tenant}|{hashlib.sha1(url.encode(), usedforsecurity=False).hexdigest()}"
        with self._store.guarded():
            self._store.client.zrem(self._store.key("receivers"), name)
            return bool(self._store.client.delete(self._store.key("receiver", name)))


def _receiver(record: dict[str, str]) -> Receiver:
    parts = urlsplit(record["url"])
    return Receiver(
        tenant=record["tenant"],
        url=urlunsplit((parts.scheme, parts.netloc, parts.path, "", "")),
        failing_since=_instant(record.get("failing_since")),
        disabled_at=_instant(record.get("disabled_at")),
        reason=record.get("reason", ""),
    )


def _instant(milliseconds: str | None) -> datetime | None:
    return datetime.fromtimestamp(int(milliseconds) / 1000, UTC) if milliseconds else None
