"""Puts right what a crash left behind: lapsed leases, lost hints, unsaved outcomes, lost records, orphaned
bytes; and ends what is over its time.

A thread in every worker; a lock in Redis lets one of them do it at a time. Doing it twice harms nothing.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator

from shared import job_files
from shared.blob_store import BlobMissing
from shared.errors import DeadlineExceeded, NotFound, ServiceError
from shared.job import Failure, Job, Status
from shared.key_ring import KeyRing
from shared.ledger import MOST_HINTS, MOST_SWEPT
from shared.log import get_logger
from shared.outcomes import Outcomes
from shared.rebuild import Rebuild
from shared.redis_store import RedisStore
from shared.usage import Usage
from worker.context import Context

INCOMING_S = 3_600.0
"""An upload that nothing was written to for so long was given up, and so was a recording without a job."""

_SELDOM_S = 600.0
_SHORTEST_LOCK_MS = 1000
_MOST = 100
_CHORE_S = 1.0
"""A chore that has so much to do goes on for so long, and leaves the rest to the next look."""

_log = get_logger()


class Sweeper:
    """Looks every `sweep_s` of the settings."""

    def __init__(self, context: Context, store: RedisStore, outcomes: Outcomes, rebuild: Rebuild) -> None:
        self._name = context.name
        self._store = store
        self._ledger = context.ledger
        self._jobs = context.jobs
        self._blobs = context.blobs
        self._dispatcher = context.dispatcher
        self._endings = context.endings
        self._outcomes = outcomes
        self._rebuild = rebuild
        self._keys = KeyRing(store, context.blobs)
        self._usage = Usage(store)
        self._pause_s = context.settings.sweep_s
        self._tombstone_s = context.settings.tombstone_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stopped.set()
        self._thread.join()

    def sweep(self) -> None:
        """One look. Steps come first and need Redis only: whatever is wrong with the rest, they go on."""
        self.put_back()
        _go_on(lambda: self._dispatcher.dispatch() >= MOST_HINTS)
        for chore in (
            self._keys.restore,
            self._rebuild.look,
            self._outcomes.save_all,
            self.end_late,
            self.expire,
            self.see_to_orphans,
            self.recount,
        ):
            try:
                chore()
            except ServiceError as error:
                _log.warning("chore_failed", chore=chore.__name__, code=error.code)

    def put_back(self) -> None:
        for queue in self._ledger.queues():
            self._put_back(queue)

    def end_late(self, at_once: int = _MOST) -> None:
        """Fails the jobs that are past their deadline, whatever they are at."""
        _go_on(lambda: self._end_some(at_once) == at_once)

    def expire(self, at_once: int = _MOST) -> None:
        """First the bytes, then the mark; a tombstone that is old itself goes altogether."""
        _go_on(lambda: self._expire_some(at_once) == at_once)

    def see_to_orphans(self) -> None:
        """Now and then: folders without a record become jobs again or go, and so do uploads that were given
        up. To look at all folders may take longer than the lock lasts; no second one is to begin with it."""
        with self._store.guarded():
            every_ms = int(_SELDOM_S * 1000)
            if not self._store.client.set(self._store.key("orphans"), self._name, nx=True, px=every_ms):
                return
        for job_id in self._jobs.without_record(self._blobs.folders("jobs")):
            if self._is_old(job_id) and not self._rebuild.restore(job_id):
                self._blobs.remove_folder(job_files.folder(job_id))
                _log.info("orphan_removed", job_id=job_id)
        self._blobs.remove_drafts(INCOMING_S, self._jobs.now())

    def recount(self) -> None:
        """Now and then: what is counted for API keys is held against the records."""
        with self._store.guarded():
            every_ms = int(_SELDOM_S * 1000)
            if not self._store.client.set(self._store.key("recounted"), self._name, nx=True, px=every_ms):
                return
        if wrong := self._usage.recount():
            _log.warning("usage_put_right", entries=wrong)

    def _put_back(self, queue: str) -> None:
        _go_on(lambda: self._put_some_back(queue) >= MOST_SWEPT)

    def _put_some_back(self, queue: str) -> int:
        expired, resent = self._ledger.sweep(queue)
        if expired or resent:
            _log.info("steps_put_back", queue=queue, leases_expired=expired, hints_resent=resent)
        return expired + resent

    def _end_some(self, limit: int) -> int:
        failure = Failure(DeadlineExceeded.code, DeadlineExceeded.title, DeadlineExceeded.retryable)
        late = self._jobs.past_deadline(limit)
        for job in self._found(late):
            self._endings.close(job, Status.FAILED, failure)
        return len(late)

    def _expire_some(self, limit: int) -> int:
        due = self._jobs.due_for_expiry(limit)
        for job in self._found(due):
            self._expire(job)
        return len(due)

    def _expire(self, job: Job) -> None:
        if job.status is not Status.EXPIRED and self._is_kept(job):
            self._blobs.remove(job_files.media(job.id))
            self._blobs.remove(job_files.source(job.id))
            self._jobs.put_off_expiry(job)
            return
        self._blobs.remove_folder(job_files.folder(job.id))
        if job.status is Status.EXPIRED:
            self._jobs.forget(job.id)
        else:
            self._jobs.expire(job.id, self._tombstone_s)
        _log.info("job_expired", job_id=job.id, request_id=job.request_id)

    def _found(self, job_ids: Iterable[str]) -> Iterator[Job]:
        for job_id in job_ids:
            try:
                yield self._jobs.get(job_id)
            except NotFound:
                continue

    def _is_kept(self, job: Job) -> bool:
        """Whether the result outlives the recording, whose time has come."""
        return job.expires_at is not None and job.expires_at.timestamp() * 1000 > self._jobs.now_ms()

    def _is_old(self, job_id: str) -> bool:
        try:
            return self._blobs.age_s(job_files.folder(job_id), self._jobs.now()) > INCOMING_S
        except BlobMissing:
            # Deleted since it was listed.
            return False

    def _run(self) -> None:
        while not self._stopped.wait(self._pause_s):
            try:
                if self._is_mine():
                    self.sweep()
                    self._tell()
            except ServiceError as error:
                _log.warning("sweep_failed", code=error.code)
            except Exception:
                # Whatever it was, lapsed leases must still be looked for.
                _log.exception("sweep_failed")

    def _tell(self) -> None:
        """When somebody last swept: were there nobody left to, no other sign would tell."""
        with self._store.guarded():
            self._store.client.set(self._store.key("swept_at"), self._jobs.now_ms())

    def _is_mine(self) -> bool:
        """The lock outlives two looks; whoever holds it goes on."""
        with self._store.guarded():
            lock = self._store.key("sweeper")
            lapses_ms = max(_SHORTEST_LOCK_MS, int(self._pause_s * 2000))
            if self._store.client.set(lock, self._name, nx=True, px=lapses_ms):
                return True
            if self._store.client.get(lock) != self._name:
                return False
            self._store.client.pexpire(lock, lapses_ms)
            return True


def _go_on(some: Callable[[], bool]) -> None:
    """Does `some` again while it says that there may be more."""
    until = time.monotonic() + _CHORE_S
    while some() and time.monotonic() < until:
        pass
