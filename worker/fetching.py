"""The step before `prepare` of a job that was given an address: the recording is fetched into the blob store,
and is from then on like one that was uploaded."""

import hashlib
import time
from collections.abc import Iterator
from dataclasses import asdict, replace

from shared import job_files
from shared.blob_store import BlobMissing
from shared.errors import FetchBlocked, FetchRefused, FetchTooLarge, StorageFull
from shared.job import Job
from shared.log import get_logger
from shared.media import Media
from shared.source import Source
from worker.context import Context
from worker.fetcher import Download
from worker.leases import Held

RESERVE_BYTES = 256 * 2**20
"""Room that others need for what they write meanwhile; an upload leaves as much."""

_TELL_S = 1.0
_CHUNK_BYTES = 2**20
_USUAL_BYTES_PER_S = 16_000
_FULL_S = 30.0

_log = get_logger()


def fetch(held: Held, job: Job, context: Context) -> None:
    """Address → recording. Raises the errors of `Fetcher`, FetchTooLarge, StorageFull, BlobMissing."""
    began = time.monotonic()
    media = _taken(held, job, context)
    # The manifest first: whoever finds the recording by it must know what it is. While there is none, its
    # request is about to write it, as the address still says.
    if job_files.accept_media(context.blobs, job.id, media):
        context.blobs.remove(job_files.source(job.id))
    context.ledger.fetched(held.claim, asdict(media), media.size_bytes / _USUAL_BYTES_PER_S)
    _log.info("recording_fetched", size_bytes=media.size_bytes, seconds=round(time.monotonic() - began, 3))


def _taken(held: Held, job: Job, context: Context) -> Media:
    try:
        source = Source.from_json(context.blobs.read(job_files.source(job.id)))
    except BlobMissing:
        # An earlier attempt came so far, and died before it could say so.
        return _measured(job, context)
    scheme = source.url.partition(":")[0].lower()
    if scheme not in context.fetchers:
        raise FetchBlocked()
    with context.fetchers[scheme].fetch(source) as download:
        return _stored(download, held, job, context)


def _stored(download: Download, held: Held, job: Job, context: Context) -> Media:
    free = context.blobs.free_bytes()
    if free is not None and free - (download.size_bytes or 0) < RESERVE_BYTES:
        raise StorageFull(retry_after_s=_FULL_S)
    digest, size = hashlib.sha256(), 0
    with context.blobs.draft(job_files.media(job.id)) as draft:
        for chunk in _watched(download, held, context):
            digest.update(chunk)
            draft.write(chunk)
            size += len(chunk)
        if not size:
            raise FetchRefused("The server answered with nothing.")
        if not context.ledger.has_room(job.id, size):
            raise FetchTooLarge("With this recording the API key would have more stored than it may.")
        draft.keep()
    return replace(job.media, size_bytes=size, sha256=digest.hexdigest())


def _watched(download: Download, held: Held, context: Context) -> Iterator[bytes]:
    """The chunks; who follows the job reads now and then how far they are."""
    got, told_at = 0, -_TELL_S
    for chunk in download.chunks:
        held.check()
        if time.monotonic() - told_at >= _TELL_S:
            told_at = time.monotonic()
            context.ledger.note(held.claim, {"fetched_bytes": got, "fetch_bytes": download.size_bytes})
        got += len(chunk)
        yield chunk


def _measured(job: Job, context: Context) -> Media:
    """Raises BlobMissing when there is no recording either."""
    digest, size = hashlib.sha256(), 0
    with context.blobs.open(job_files.media(job.id)) as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return replace(job.media, size_bytes=size, sha256=digest.hexdigest())
