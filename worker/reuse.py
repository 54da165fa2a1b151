"""The same recording, asked the same of the same model, has the same transcript: it is copied, not made."""

import hashlib
import json
from dataclasses import asdict

from shared import job_files
from shared.blob_store import BlobMissing, BlobStore
from shared.errors import NotFound
from shared.job import Job, Status
from shared.job_store import JobStore
from shared.models import ModelCard
from shared.transcript import Transcript

_ASKED = ("language", "task", "word_timestamps", "prompt", "temperature", "vad", "start_s", "end_s")
"""Options that a transcript depends on."""


def fingerprint(job: Job, card: ModelCard) -> str | None:
    """Tells transcripts apart. None when the weights have no revision, so that nobody knows what they are."""
    if card.revision is None:
        return None
    options = asdict(job.options)
    made_of = [job.media.sha256, card.name, card.revision, card.abilities.window_s]
    text = json.dumps([*made_of, {name: options[name] for name in _ASKED}], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def find(job: Job, fingerprint: str, jobs: JobStore, blobs: BlobStore) -> tuple[Job, Transcript] | None:
    """A completed job of the same tenant with this fingerprint, and its transcript, while both are there.

    Only of the same tenant: else the time an answer takes would tell what others have sent.
    """
    job_id = jobs.job_with_result(job.tenant, fingerprint)
    if job_id is None:
        return None
    try:
        source = jobs.get(job_id, job.tenant)
        if source.status is not Status.COMPLETED:
            return None
        return source, Transcript.from_json(blobs.read(job_files.transcript(job_id)))
    except (NotFound, BlobMissing):
        return None
