"""Puts right what a crash left behind: lapsed leases, lost hints, unsaved outcomes, lost records, orphaned
bytes; and ends what is over its time.

A thread in every worker; a lock in Redis lets one of them do it at a time. Doing it twice harms nothing.
"""

import threading
import time
from collections.abc import Iterable, Iterator

from shared import job_files
from shared.blob_store import BlobMissing
from shared.errors import DeadlineExceeded, NotFound, ServiceError
from shared.job import Failure, Job, Status
from shared.log import get_logger
from shared.outcomes import Outcomes
from shared.rebuild import Rebuild
from shared.redis_store import RedisStore
from worker.context import Context

INCOMING_S = 3_600.0
"""An upload that nothing was written to for so long was given up, and so was a recording without a job."""

_ORPHANS_EVERY_S = 600.0
_SHORTEST_LOCK_MS = 1000

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
        self._pause_s = context.settings.sweep_s
        self._tombstone_s = context.settings.tombstone_s
        self._orphans_at = 0.0
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
        self._dispatcher.dispatch()
        for chore in (
            self._rebuild.look,
            self._outcomes.save_all,
            self.end_late,
            self.expire,
            self.see_to_orphans,
        ):
            try:
                chore()
            except ServiceError as error:
                _log.warning("chore_failed", chore=chore.__name__, code=error.code)

    def put_back(self) -> None:
        for queue in self._ledger.queues():
            expired, resent = self._ledger.sweep(queue)
            if expired or resent:
                _log.info("steps_put_back", queue=queue, leases_expired=expired, hints_resent=resent)

    def end_late(self) -> None:
        """Fails the jobs that are past their deadline, whatever they are at."""
        failure = Failure(DeadlineExceeded.code, DeadlineExceeded.title, DeadlineExceeded.retryable)
        for job in self._found(self._jobs.past_deadline()):
            if self._endings.close(job, Status.FAILED, failure):
                _log.warning("job_failed", job_id=job.id, code=failure.code)

    def expire(self) -> None:
        """First the bytes, then the mark; a tombstone that is old itself goes altogether."""
        for job in self._found(self._jobs.due_for_expiry()):
            if job.status is not Status.EXPIRED and self._is_kept(job):
                self._blobs.remove(job_files.media(job.id))
                self._jobs.put_off_expiry(job)
                continue
            self._blobs.remove_folder(job_files.folder(job.id))
            if job.status is Status.EXPIRED:
                self._jobs.forget(job.id)
            else:
                self._jobs.expire(job.id, self._tombstone_s)
            _log.info("job_expired", job_id=job.id)

    def see_to_orphans(self) -> None:
        """Now and then: folders without a record become jobs again or go, and so do uploads that were given
        up."""
        if time.monotonic() < self._orphans_at:
            return
        self._orphans_at = time.monotonic() + _ORPHANS_EVERY_S
        for job_id in self._blobs.folders("jobs"):
            if self._is_orphan(job_id) and not self._rebuild.restore(job_id):
                self._blobs.remove_folder(job_files.folder(job_id))
                _log.info("orphan_removed", job_id=job_id)
        self._blobs.remove_drafts(INCOMING_S, self._jobs.now())

    def _found(self, job_ids: Iterable[str]) -> Iterator[Job]:
        for job_id in job_ids:
            try:
                yield self._jobs.get(job_id)
            except NotFound:
                continue

    def _is_kept(self, job: Job) -> bool:
        """Whether the result outlives the recording, whose time has come."""
        return job.expires_at is not None and job.expires_at.timestamp() * 1000 > self._jobs.now_ms()

    def _is_orphan(self, job_id: str) -> bool:
        try:
            self._jobs.get(job_id)
        except NotFound:
            return self._is_old(job_id)
        return False

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
            except ServiceError as error:
                _log.warning("sweep_failed", code=error.code)
            except Exception:
                # Whatever it was, lapsed leases must still be looked for.
                _log.exception("sweep_failed")

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
