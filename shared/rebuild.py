"""Records that Redis lost are made again from what lies beside the recordings.

Redis may come back empty (`FLUSHALL`, a lost volume) or old (a copy from yesterday). Whoever looks tells by
a mark in Redis that holds the run id of the server for which all records were compared with the blob store.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime

from shared import job_files
from shared.blob_store import BlobMissing, BlobStore
from shared.errors import Rebuilding
from shared.job import Status
from shared.job_store import JobStore, NewJob
from shared.log import get_logger
from shared.outcomes import Outcomes
from shared.redis_store import RedisStore

_RETRY_S = 5.0
_CHUNK = 500
_LOCK_S = 60
_AT_ONCE = 8
"""An object store takes its time to answer, and as long for eight questions as for one."""

_log = get_logger()


class Rebuild:
    """`idempotency_s` is how long an Idempotency-Key is remembered."""

    def __init__(self, store: RedisStore, jobs: JobStore, blobs: BlobStore, idempotency_s: float) -> None:
        self._store = store
        self._jobs = jobs
        self._blobs = blobs
        self._idempotency_s = idempotency_s
        self._outcomes = Outcomes(store, blobs)

    def is_whole(self) -> bool:
        """Whether Redis holds what it should, as far as anybody has looked since it started."""
        with self._store.guarded():
            return bool(self._store.client.get(self._store.key("whole")) == self._run_id())

    def require_whole(self) -> None:
        """Raises Rebuilding."""
        if not self.is_whole():
            raise Rebuilding(retry_after_s=_RETRY_S)

    def look(self) -> bool:
        """Makes records again if that is due. False while somebody else is at it."""
        run_id = self._run_id()
        if self.is_whole():
            return True
        with self._store.guarded():
            lock = self._store.key("rebuilding")
            if not self._store.client.set(lock, run_id, nx=True, ex=_LOCK_S):
                return False
            try:
                self._make_whole()
                self._store.client.set(self._store.key("whole"), run_id)
            finally:
                self._store.client.delete(lock)
        return True

    def restore(self, job_id: str, *, is_forgotten: bool = True) -> bool:
        """Makes one record again; False when there is nothing to make it from.

        Manifests are written after their records, so what has one was a job. A deleted one has none: that
        goes first.
        """
        try:
            accepted = job_files.read_manifest(self._blobs, job_id)
        except BlobMissing:
            return False
        except job_files.ManifestUnreadable:
            # Its bytes stay, for whoever can read it; nobody else is to wait for that.
            _log.error("manifest_unreadable", job_id=job_id)
            return True
        if self._outcomes.restore(job_id):
            _log.warning("outcome_restored", job_id=job_id, request_id=accepted.request_id)
        elif is_forgotten:
            self._accept_again(accepted)
            _log.warning("job_restored", job_id=job_id, request_id=accepted.request_id)
        return True

    def _make_whole(self) -> None:
        began = time.monotonic()
        self._blobs.check()
        known = self._blobs.folders("jobs")
        deleted = set()
        with ThreadPoolExecutor(_AT_ONCE, "rebuild") as readers:
            for chunk in _chunks(known):
                self._hold_on()
                statuses = dict(zip(chunk, self._statuses(chunk), strict=True))
                unsure = [job_id for job_id in chunk if not _has_ended(statuses[job_id])]
                are_forgotten = [statuses[job_id] is None for job_id in unsure]
                are_there = readers.map(self._restore, unsure, are_forgotten)
                # Some stores name a folder for a while after all in it was deleted.
                deleted |= {
                    job_id for job_id, is_there in zip(unsure, are_there, strict=True) if not is_there
                }
        if known:
            self._forget_deleted(set(known) - deleted)
            _log.info("records_compared", jobs=len(known), seconds=round(time.monotonic() - began, 3))

    def _hold_on(self) -> None:
        """Who looks next is not to begin as well, however long this takes."""
        with self._store.guarded():
            self._store.client.expire(self._store.key("rebuilding"), _LOCK_S)

    def _restore(self, job_id: str, is_forgotten: bool) -> bool:
        return self.restore(job_id, is_forgotten=is_forgotten)

    def _accept_again(self, accepted: NewJob) -> None:
        age_s = (datetime.now(UTC) - accepted.accepted_at).total_seconds()
        left_s = max(0.0, self._idempotency_s - age_s)
        keyed = accepted if left_s else replace(accepted, idempotency_key="")
        if not self._jobs.create_again(keyed, left_s):
            # Its key leads to another job: both were accepted, so both must be there.
            self._jobs.create_again(replace(accepted, idempotency_key=""), 0.0)

    def _forget_deleted(self, known: set[str]) -> None:
        """An old copy remembers jobs that were deleted since: without their recording they could only fail.

        A recording, or its address, is there before its record, so a job without one is no newcomer.
        """
        for chunk in _chunks([job_id for job_id in self._recorded() if job_id not in known]):
            for job_id, status in zip(chunk, self._statuses(chunk), strict=True):
                if (
                    status is not None
                    and not _has_ended(status)
                    and not job_files.is_held(self._blobs, job_id)
                ):
                    self._jobs.delete(job_id)
                    _log.warning("deleted_job_forgotten", job_id=job_id)

    def _recorded(self) -> Iterator[str]:
        with self._store.guarded():
            for tenant in sorted(self._store.client.smembers(self._store.key("tenants"))):
                for job_id, _ in self._store.client.zscan_iter(self._store.key("jobs", tenant)):
                    yield job_id

    def _statuses(self, job_ids: Sequence[str]) -> list[str | None]:
        with self._store.guarded():
            pipe = self._store.client.pipeline(transaction=False)
            for job_id in job_ids:
                pipe.hget(self._store.key("job", job_id), "status")
            statuses: list[str | None] = pipe.execute()
        return statuses

    def _run_id(self) -> str:
        with self._store.guarded():
            return str(self._store.client.info("server")["run_id"])


def _has_ended(status: str | None) -> bool:
    return status is not None and Status(status).is_terminal


def _chunks(job_ids: Iterable[str]) -> Iterator[Sequence[str]]:
    chunk: list[str] = []
    for job_id in job_ids:
        chunk.append(job_id)
        if len(chunk) == _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
