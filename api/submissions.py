"""Takes a job in: media, record, manifest, hint, in this order, so that what was accepted cannot be lost, and
what was not is never taken for it."""

import base64
import hashlib
import secrets
from collections.abc import Callable
from dataclasses import replace

from api.auth import Caller
from api.durations import guess_duration_s
from api.estimates import retry_after_s
from api.parts import Parts
from shared import job_files
from shared.blob_store import BlobMissing, Draft
from shared.errors import (
    BacklogFull,
    DependencyError,
    Expired,
    JobEnded,
    NotFound,
    NotReady,
    Rebuilding,
    StoreUnavailable,
    TooManyJobs,
    TooMuchAudio,
    TooMuchStored,
)
from shared.job import Job, Options, Status
from shared.job_store import LIMIT_RETRY_S, MOST_OWED_S, NewJob, above_stored_limit, first_step
from shared.ledger import DELIVER_QUEUE, ReplayOutcome
from shared.log import bound, get_logger
from shared.media import Media
from shared.source import Source

_ID_BYTES = 16
_AGAIN_S = 5.0
_FORM_BYTES = 2**16
"""So much more than the recording itself a form may be."""

_log = get_logger()


def new_id() -> str:
    """128 random bits: an id cannot be guessed."""
    return "job_" + base64.b32encode(secrets.token_bytes(_ID_BYTES)).decode().rstrip("=").lower()


def request_hash(recording: str, options: Options) -> str:
    """Two requests with one Idempotency-Key are the same when recording and options are. `recording` is its
    hash, or that of its source."""
    return hashlib.sha256(f"{recording}\n{options.to_json()}".encode()).hexdigest()


def submit(parts: Parts, caller: Caller, new: NewJob, recording: Draft) -> tuple[Job, bool]:
    """Makes the job of an uploaded recording; the job, and whether it is new.

    Raises IdempotencyMismatch, LimitReached, UploadTooLarge.
    """
    return _enter(parts, caller, new, recording.keep)


def submit_source(parts: Parts, caller: Caller, new: NewJob, source: Source) -> tuple[Job, bool]:
    """`submit` of a recording that a worker is to fetch."""
    return _enter(parts, caller, new, lambda: parts.blobs.write(job_files.source(new.id), source.to_json()))


def resubmit(parts: Parts, caller: Caller, job: Job, request_id: str, traceparent: str = "") -> Job:
    """A new job for the recording of one that failed or was canceled.

    Raises NotReady, JobEnded, Expired, LimitReached, UploadTooLarge.
    """
    if not job.status.is_terminal:
        raise NotReady()
    if job.status is Status.COMPLETED:
        raise JobEnded("The job has completed; there is nothing to try again.")
    media = Media(job.media.name, job.media.size_bytes, job.media.sha256, url=job.media.url)
    place = job_files.media if media.is_here else job_files.source
    new = NewJob(
        new_id(),
        job.tenant,
        job.options,
        media,
        request_id,
        retry_of=job.id,
        # By its size where nobody got to decode it: a job that seems to owe nothing wakes no worker.
        audio_s=job.media.duration_s or job.total_s or guess_duration_s(b"", media.size_bytes),
        traceparent=traceparent,
        key_id=caller.key_id,
    )

    def copy() -> None:
        parts.blobs.copy(place(job.id), place(new.id))

    try:
        return _enter(parts, caller, new, copy)[0]
    except BlobMissing:
        raise Expired() from None


def refuse_when_full(parts: Parts, caller: Caller, idempotency_key: str, size_bytes: int) -> None:
    """Before a recording of about this size is read that cannot be taken. Raises BacklogFull, Rebuilding,
    LimitReached, UploadTooLarge.

    What has a key may have been accepted before; it is judged when its record is made.
    """
    if idempotency_key:
        parts.rebuild.require_whole()
        return
    _refuse_beyond(parts, caller, size_bytes)
    if parts.settings.max_backlog_s and (owed_s := parts.jobs.owed_s()) >= parts.settings.max_backlog_s:
        raise _backlog_full(parts, owed_s)


def _refuse_beyond(parts: Parts, caller: Caller, size_bytes: int) -> None:
    """What its key will be refused for anyway, by then with the recording on disk."""
    limits, least_bytes = caller.limits, max(0, size_bytes - _FORM_BYTES)
    if not (limits.jobs or limits.audio_s or limits.stored_bytes):
        return
    if 0 < limits.stored_bytes < least_bytes:
        raise above_stored_limit(limits)
    used = parts.usage.of(caller.key_id)
    if 0 < limits.jobs <= used.jobs:
        raise TooManyJobs(retry_after_s=LIMIT_RETRY_S)
    if 0 < limits.audio_s <= used.audio_s:
        raise TooMuchAudio(retry_after_s=LIMIT_RETRY_S)
    if 0 < limits.stored_bytes < used.stored_bytes + least_bytes:
        raise TooMuchStored(retry_after_s=LIMIT_RETRY_S)


def _enter(parts: Parts, caller: Caller, new: NewJob, place_media: Callable[[], None]) -> tuple[Job, bool]:
    with parts.tracer.span("create", job_id=new.id):
        place_media()
        job, is_new = _record(parts, caller, new)
    if is_new:
        parts.metrics.accepted(job.options.model)
        # A retry's lines are about the old job; this one is about the new.
        with bound(job_id=job.id), parts.tracer.span("submit", job_id=job.id):
            _log.info("job_created", size_bytes=job.media.size_bytes, model=job.options.model)
            dispatch(parts, first_step(job.media)[1])
    return job, is_new


def _record(parts: Parts, caller: Caller, new: NewJob) -> tuple[Job, bool]:
    try:
        job, is_new = _create(parts, caller, new)
    except StoreUnavailable:
        # The record may yet come to be, when the job store wakes up, and then needs its recording.
        raise
    except BaseException:
        parts.blobs.remove_folder(job_files.folder(new.id))
        raise
    if not is_new:
        parts.blobs.remove_folder(job_files.folder(new.id))
        new = replace(new, id=job.id)
    _confirm(parts, new, is_new)
    return job, is_new


def _create(parts: Parts, caller: Caller, new: NewJob) -> tuple[Job, bool]:
    try:
        most_owed_s = parts.settings.max_backlog_s or MOST_OWED_S
        return parts.jobs.create(new, parts.settings.idempotency_s, most_owed_s, caller.limits)
    except BacklogFull as error:
        raise _backlog_full(parts, parts.jobs.owed_s()) from error
    except StoreUnavailable:
        # The answer was lost, the record may be there all the same: then the job is accepted.
        try:
            return parts.jobs.get(new.id), True
        except NotFound:
            pass
        raise
    except NotFound as error:
        parts.rebuild.require_whole()
        raise Expired("The job that this Idempotency-Key made was deleted.") from error


def _confirm(parts: Parts, new: NewJob, is_new: bool) -> None:
    """Writes the manifest, the second truth beside the record, unless an earlier request did; and looks once
    more whether both are there, for Redis may have been emptied in between. Raises Rebuilding.

    Then the record is made again at once: a rebuild that had passed by before the manifest was there would
    make it some time, and the client's next try, under the same key, another one meanwhile.

    A repeat may be about a job whose recording is gone, with all else: there is nothing left to keep.
    """
    is_written = parts.blobs.exists(job_files.manifest(new.id))
    if not is_written and job_files.is_held(parts.blobs, new.id):
        try:
            job_files.write_manifest(parts.blobs, new)
        except DependencyError:
            # What an earlier request made may have been promised by now.
            if is_new:
                parts.jobs.delete(new.id)
                parts.blobs.remove_folder(job_files.folder(new.id))
            raise
    try:
        parts.jobs.get(new.id)
    except NotFound:
        if is_new and parts.jobs.create_again(new, parts.settings.idempotency_s):
            return
        if is_new:
            # Its key has made another meanwhile, and this one was promised to nobody.
            parts.blobs.remove_folder(job_files.folder(new.id))
        raise Rebuilding(retry_after_s=_AGAIN_S) from None


def _backlog_full(parts: Parts, owed_s: float) -> BacklogFull:
    most_s, speed = parts.settings.max_backlog_s, parts.speeds.of(parts.models[0].name)
    return BacklogFull(retry_after_s=retry_after_s(owed_s, most_s, speed))


def replay(parts: Parts, job: Job) -> None:
    """Its webhook once more. Raises NotFound when nothing of it is left."""
    if parts.ledger.replay(job.id) is ReplayOutcome.GONE:
        raise NotFound("There is no such delivery.")
    dispatch(parts, DELIVER_QUEUE)


def dispatch(parts: Parts, queue: str) -> None:
    """Sends the hint; when that fails the sweeper will send it, so no request fails for it."""
    try:
        parts.dispatcher.dispatch([queue])
    except DependencyError as error:
        _log.warning("dispatch_failed", code=error.code)
