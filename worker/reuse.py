"""The same recording, asked the same of the same model, has the same transcript: it is copied, not made."""

import hashlib
import json
from dataclasses import asdict, replace

from shared import job_files
from shared.blob_store import BlobMissing, BlobStore
from shared.errors import NotFound
from shared.job import Job, Status
from shared.job_store import JobStore
from shared.log import get_logger
from shared.models import ModelCard
from shared.transcript import Transcript
from worker.context import Context
from worker.leases import Held

_ASKED = ("language", "task", "word_timestamps", "prompt", "temperature", "vad", "start_s", "end_s")
"""Options that a transcript depends on."""

_log = get_logger()


def end_with_equal(held: Held, job: Job, card: ModelCard, context: Context) -> bool:
    """Ends the job with the transcript of an equal one, if there is such a one."""
    mark = _fingerprint(job, card)
    if mark is None or not (context.settings.reuse and job.options.reuse):
        return False
    found = _find(job, mark, context.jobs, context.blobs)
    if found is None:
        return False
    source, transcript = found
    context.blobs.write(job_files.transcript(job.id), transcript.to_json().encode())
    fields = {
        "reused_from": source.id,
        "media": asdict(replace(source.media, name=job.media.name, url=job.media.url)),
        "model": card.used,
        "done_s": source.done_s,
        "total_s": source.total_s or 0.0,
        "warnings": source.warnings,
    }
    language = {"language": asdict(source.language)} if source.language else {}
    context.endings.end(held.claim, job, Status.COMPLETED, fields | language)
    _log.info("transcript_reused")
    return True


def remember(job: Job, context: Context) -> None:
    """For `end_with_equal`, as long as the transcript is kept."""
    mark = _fingerprint(job, context.card(job.options.model)) if context.settings.reuse else None
    if mark is not None and job.options.reuse:
        context.jobs.remember_result(job.tenant, mark, job.id, context.endings.retention_s(job))


def _fingerprint(job: Job, card: ModelCard) -> str | None:
    """Tells transcripts apart. None when the weights have no revision, so that nobody knows what they are."""
    if card.revision is None:
        return None
    options = asdict(job.options)
    made_of = [job.media.sha256, card.name, card.revision, card.abilities.window_s]
    text = json.dumps([*made_of, {name: options[name] for name in _ASKED}], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _find(job: Job, mark: str, jobs: JobStore, blobs: BlobStore) -> tuple[Job, Transcript] | None:
    """A completed job of the same tenant with this mark, and its transcript, while both are there.

    Only of the same tenant: else the time an answer takes would tell what others have sent.
    """
    job_id = jobs.job_with_result(job.tenant, mark)
    if job_id is None:
        return None
    try:
        source = jobs.get(job_id, job.tenant)
        if source.status is not Status.COMPLETED:
            return None
        return source, Transcript.from_json(blobs.read(job_files.transcript(job_id)))
    except (NotFound, BlobMissing):
        return None
