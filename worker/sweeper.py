"""Puts right what a crash left behind: lapsed leases, lost hints, expired jobs, orphaned bytes.

A thread in every worker; a lock in Redis lets one of them do it at a time. Doing it twice harms nothing.
"""

import threading
import time
from dataclasses import replace

from shared import job_files
from shared.blob_store import BlobMissing, BlobStore
from shared.errors import NotFound, ServiceError
from shared.job import Status
from shared.job_store import JobStore
from shared.ledger import Ledger
from shared.log import get_logger
from shared.redis_store import RedisStore
from shared.task_queue import Dispatcher

TOMBSTONE_S = 7 * 86_400.0
"""How long an expired job can still be asked for, and answers 410."""

INCOMING_S = 3_600.0
"""An upload that nothing was written to for so long was given up."""

_ORPHANS_EVERY_S = 600.0

_log = get_logger()


class Sweeper:
    """`sweep_s` is the pause between two looks."""

    def __init__(
        self,
        name: str,
        store: RedisStore,
        ledger: Ledger,
        jobs: JobStore,
        blobs: BlobStore,
        dispatcher: Dispatcher,
        sweep_s: float,
    ) -> None:
        self._name = name
        self._store = store
        self._ledger = ledger
        self._jobs = jobs
        self._blobs = blobs
        self._dispatcher = dispatcher
        self._pause_s = sweep_s
        self._orphans_at = 0.0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stopped.set()
        self._thread.join()

    def sweep(self) -> None:
        """One look: steps, then retention, then, now and then, orphans."""
        for queue in self._ledger.queues():
            expired, resent = self._ledger.sweep(queue)
            if expired or resent:
                _log.info("steps_put_back", queue=queue, leases_expired=expired, hints_resent=resent)
        self._dispatcher.dispatch()
        self.expire()
        if time.monotonic() >= self._orphans_at:
            self._orphans_at = time.monotonic() + _ORPHANS_EVERY_S
            self.see_to_orphans()

    def expire(self) -> None:
        """First the bytes, then the mark; a tombstone that is old itself goes altogether."""
        for job_id in self._jobs.due_for_expiry():
            try:
                status = self._jobs.get(job_id).status
            except NotFound:
                continue
            self._blobs.remove(job_files.folder(job_id))
            if status is Status.EXPIRED:
                self._jobs.delete(job_id)
            else:
                self._jobs.expire(job_id, TOMBSTONE_S)
            _log.info("job_expired", job_id=job_id)

    def see_to_orphans(self) -> None:
        """Folders without a record: a manifest makes the job again, anything else is removed, and so are
        uploads that were given up."""
        for job_id in self._blobs.folders("jobs"):
            if self._is_orphan(job_id):
                self._restore_or_remove(job_id)
        if self._blobs.is_local:
            self._remove_old_uploads()

    def _is_orphan(self, job_id: str) -> bool:
        try:
            self._jobs.get(job_id)
        except NotFound:
            return self._is_old(job_id)
        return False

    def _is_old(self, job_id: str) -> bool:
        try:
            return self._blobs.age_s(job_files.folder(job_id)) > INCOMING_S
        except BlobMissing:
            # Deleted since it was listed.
            return False

    def _restore_or_remove(self, job_id: str) -> None:
        """The API died between manifest and record, or Redis forgot: nobody saw such a job end, unless its
        transcript lies there. A deleted job has no manifest, it goes first."""
        if self._blobs.exists(job_files.transcript(job_id)):
            return
        try:
            forgotten = job_files.read_manifest(self._blobs, job_id)
        except BlobMissing:
            self._blobs.remove(job_files.folder(job_id))
            _log.info("orphan_removed", job_id=job_id)
            return
        self._jobs.create(replace(forgotten, idempotency_key=""))
        _log.warning("job_restored", job_id=job_id)

    def _remove_old_uploads(self) -> None:
        for path in self._blobs.incoming.iterdir():
            try:
                if path.is_file() and time.time() - path.stat().st_mtime > INCOMING_S:
                    path.unlink()
            except FileNotFoundError:
                continue

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
        """The lock outlives three looks; whoever holds it goes on."""
        with self._store.guarded():
            lock = self._store.key("sweeper")
            lapses_ms = int(self._pause_s * 3000)
            if self._store.client.set(lock, self._name, nx=True, px=lapses_ms):
                return True
            if self._store.client.get(lock) != self._name:
                return False
            self._store.client.pexpire(lock, lapses_ms)
            return True
