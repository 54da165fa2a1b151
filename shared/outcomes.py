"""The outcomes of ended jobs, kept beside their recordings: what makes a record again that Redis forgot.

`end.lua` marks a job as unsaved in the same act that ends it; whoever ended it saves it at once, and the
sweeper saves what a crash left unsaved.
"""

import json
from dataclasses import dataclass

from shared import job_files
from shared.blob_store import BlobMissing, BlobStore
from shared.job import Status
from shared.redis_store import RedisStore

_VERSION = 1
_OUTBOX = "deliver-0"
_PATIENCE_MS = 60_000


@dataclass(frozen=True, slots=True)
class Outcome:
    """A record as it ended, the webhook's frozen body and the log of its deliveries."""

    record: dict[str, str]
    webhook: str
    deliveries: tuple[str, ...]


class Outcomes:
    def __init__(self, store: RedisStore, blobs: BlobStore) -> None:
        self._store = store
        self._blobs = blobs

    def save(self, job_id: str) -> None:
        """Writes the outcome of an ended job, if there is news of it. Raises DependencyError."""
        with self._store.guarded():
            mark: float | None = self._store.client.zscore(self._store.key("unsaved"), job_id)
        if mark is None:
            return
        outcome = self._read(job_id)
        if outcome is not None:
            if self._blobs.exists(job_files.manifest(job_id)):
                self._write(job_id, outcome)
            elif self._now_ms() - mark < _PATIENCE_MS:
                # The request that made the job is about to write it; if it died, there is nothing to go by.
                return
        self._store.run("saved", job_id, f"{mark:.0f}")

    def save_all(self, limit: int = 200) -> int:
        """Saves what nobody saved; how many."""
        with self._store.guarded():
            job_ids: list[str] = self._store.client.zrange(self._store.key("unsaved"), 0, limit - 1)
        for job_id in job_ids:
            self.save(job_id)
        return len(job_ids)

    def restore(self, job_id: str) -> bool:
        """Makes the record what it was when the job ended. False when no outcome lies there."""
        try:
            fields = json.loads(self._blobs.read(job_files.outcome(job_id)))
        except BlobMissing:
            return False
        self._store.run(
            "restore",
            job_id,
            json.dumps(fields["record"]),
            fields["webhook"],
            json.dumps(fields["deliveries"]),
            self._recording_bytes(job_id, fields["record"]),
        )
        return True

    def _recording_bytes(self, job_id: str, record: dict[str, str]) -> str:
        """Empty when it is gone: a recording may go before the rest."""
        if not self._blobs.exists(job_files.media(job_id)):
            return ""
        return str(json.loads(record.get("media", "{}")).get("size_bytes", ""))

    def _read(self, job_id: str) -> Outcome | None:
        key = self._store.key
        with self._store.guarded():
            # At one moment: Redis may lose what it knows between two reads, and half an outcome is none.
            pipe = self._store.client.pipeline(transaction=True)
            pipe.hgetall(key("job", job_id))
            pipe.hget(key("step", job_id, _OUTBOX), "body")
            pipe.lrange(key("deliveries", job_id), 0, -1)
            record, webhook, deliveries = pipe.execute()
        status = record.get("status")
        if status is None or not Status(status).is_terminal or status == Status.EXPIRED:
            return None
        return Outcome(record, webhook or "", tuple(deliveries))

    def _now_ms(self) -> int:
        with self._store.guarded():
            seconds, _ = self._store.client.time()
        return int(seconds) * 1000

    def _write(self, job_id: str, outcome: Outcome) -> None:
        fields = {
            "version": _VERSION,
            "record": outcome.record,
            "webhook": outcome.webhook,
            "deliveries": outcome.deliveries,
        }
        self._blobs.write(job_files.outcome(job_id), json.dumps(fields).encode())
