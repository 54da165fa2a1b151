"""Where the bytes of a job lie in the blob store; the manifest, which says what was accepted."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from shared.blob_store import BlobMissing, BlobStore
from shared.job import Options
from shared.job_store import NewJob
from shared.media import Media


class ManifestUnreadable(Exception):
    """A manifest that nobody can make a job of."""


def folder(job_id: str) -> str:
    return f"jobs/{job_id}"


def media(job_id: str) -> str:
    return f"jobs/{job_id}/media"


def source(job_id: str) -> str:
    """Where a recording is to be fetched; gone once it has been."""
    return f"jobs/{job_id}/source.json"


def manifest(job_id: str) -> str:
    return f"jobs/{job_id}/manifest.json"


def outcome(job_id: str) -> str:
    return f"jobs/{job_id}/outcome.json"


def part_audio(job_id: str, part: str) -> str:
    return f"jobs/{job_id}/{part}.flac"


def part_result(job_id: str, part: str) -> str:
    return f"jobs/{job_id}/{part}.json"


def transcript(job_id: str) -> str:
    return f"jobs/{job_id}/transcript.json"


def write_manifest(blobs: BlobStore, new: NewJob) -> None:
    """The second truth beside the record: enough to make the record again."""
    blobs.write(
        manifest(new.id),
        json.dumps(
            {
                "version": 1,
                "id": new.id,
                "tenant": new.tenant,
                "key_id": new.key_id,
                "request_id": new.request_id,
                "traceparent": new.traceparent,
                "retry_of": new.retry_of,
                "idempotency_key": new.idempotency_key,
                "request_hash": new.request_hash,
                "audio_s": new.audio_s,
                "accepted_at": new.accepted_at.isoformat(),
                "options": json.loads(new.options.to_json()),
                "media": {
                    "name": new.media.name,
                    "size_bytes": new.media.size_bytes,
                    "sha256": new.media.sha256,
                    "url": new.media.url,
                },
            }
        ).encode(),
    )


def accept_media(blobs: BlobStore, job_id: str, media: Media) -> bool:
    """Says in the manifest what was fetched. False while there is none."""
    try:
        accepted = read_manifest(blobs, job_id)
    except BlobMissing:
        return False
    write_manifest(blobs, replace(accepted, media=media))
    return True


def is_held(blobs: BlobStore, job_id: str) -> bool:
    """Whether the recording is there, or its address."""
    return blobs.exists(media(job_id)) or blobs.exists(source(job_id))


def read_manifest(blobs: BlobStore, job_id: str) -> NewJob:
    """Raises BlobMissing, and ManifestUnreadable when it was not written by `write_manifest`."""
    try:
        return _new_job(json.loads(blobs.read(manifest(job_id))))
    except (KeyError, TypeError, ValueError) as error:
        raise ManifestUnreadable(job_id) from error


def _new_job(fields: dict[str, Any]) -> NewJob:
    accepted_at = fields.get("accepted_at")
    return NewJob(
        id=fields["id"],
        tenant=fields["tenant"],
        options=Options.from_json(json.dumps(fields["options"])),
        media=Media(**fields["media"]),
        request_id=fields["request_id"],
        retry_of=fields["retry_of"],
        idempotency_key=fields["idempotency_key"],
        request_hash=fields["request_hash"],
        # The first manifests said none of these.
        audio_s=fields.get("audio_s", 0.0),
        accepted_at=datetime.fromisoformat(accepted_at) if accepted_at else datetime.now(UTC),
        traceparent=fields.get("traceparent", ""),
        key_id=fields.get("key_id", ""),
    )
