"""What each API key takes at the moment: open jobs, the audio they owe, the recordings that are kept.

The ledger's scripts count, in the act that makes, moves, ends or deletes a job; here it is read and put
right.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from shared.redis_store import RedisStore

_KINDS = ("open", "stored")
_CHUNK = 200


@dataclass(frozen=True, slots=True)
class Used:
    jobs: int = 0
    audio_s: float = 0.0
    stored_bytes: int = 0


class Usage:
    def __init__(self, store: RedisStore) -> None:
        self._store = store

    def of(self, key_id: str) -> Used:
        with self._store.guarded():
            pipe = self._store.client.pipeline(transaction=True)
            pipe.hlen(self._store.key("open", key_id))
            pipe.hmget(self._store.key("usage", key_id), *_KINDS)
            jobs, (open_ms, stored_bytes) = pipe.execute()
        return Used(int(jobs), int(open_ms or 0) / 1000, int(stored_bytes or 0))

    def recount(self) -> int:
        """Compares what is counted with the records, a few at a time; how much was wrong. Others may work
        on."""
        with self._store.guarded():
            key_ids: set[str] = self._store.client.smembers(self._store.key("holders"))
        return sum(
            int(self._store.run("recount", key_id, kind, *ids))
            for key_id in sorted(key_ids)
            for kind in _KINDS
            for ids in self._entries(key_id, kind)
        )

    def _entries(self, key_id: str, kind: str) -> Iterator[tuple[str, ...]]:
        cursor = 0
        while True:
            with self._store.guarded():
                cursor, rows = self._store.client.hscan(self._store.key(kind, key_id), cursor, count=_CHUNK)
            yield tuple(rows)
            if int(cursor) == 0:
                return
