"""The two routes of the server this one grew from: its answers, over our queue, with honest failures."""

from typing import Literal

from flask import Response
from flask_openapi.blueprint import APIBlueprint

from api.answers import JobOut, SeedHealthOut, SeedMetadataOut, SeedOut
from api.jobs import accepted, json_answer, take_in
from api.openapi import IDEMPOTENCY_KEY, SEED, answers, form_body, json_content
from api.parts import Parts, parts
from api.problems import all_errors, error_class
from api.schemas import NoQuery
from api.transcripts import read_transcript
from api.waiting import wait_for
from shared.errors import (
    BacklogFull,
    Expired,
    IdempotencyMismatch,
    IncompleteUpload,
    JobError,
    LengthRequired,
    NoTranscript,
    StorageFull,
    StoreUnavailable,
    UnknownModel,
    UnsupportedEncoding,
    UnsupportedMediaType,
    UnsupportedOption,
    UploadTooLarge,
)
from shared.job import Job, Status

blueprint = APIBlueprint("seed", __name__, abp_tags=[SEED])


@blueprint.post(
    "/transcribe",
    summary="Transcribe and wait",
    request_body=form_body("audio_file"),
    openapi_extensions={"parameters": [IDEMPOTENCY_KEY]},
    responses=answers(
        200,
        SeedOut,
        NoTranscript,
        IdempotencyMismatch,
        Expired,
        UnknownModel,
        UnsupportedOption,
        LengthRequired,
        UploadTooLarge,
        UnsupportedMediaType,
        UnsupportedEncoding,
        IncompleteUpload,
        BacklogFull,
        StorageFull,
        *(kind for kind in all_errors() if issubclass(kind, JobError)),
    )
    | answers(202, JobOut),
)
def transcribe() -> Response:
    """Takes as long as the job, up to a bound; after that 202 and the job, which goes on."""
    job, _ = take_in("audio_file", "file")
    job = wait_for(parts(), job, parts().settings.max_wait_s, until_end=True)
    if not job.status.is_terminal:
        return accepted(parts(), job)
    return json_answer(seed_out(parts(), job).model_dump_json())


@blueprint.get(
    "/health",
    summary="Can it transcribe now",
    responses=answers(200, SeedHealthOut)
    | {"503": {"description": "It cannot, and why.", "content": json_content(SeedHealthOut)}},
)
def health(query: NoQuery) -> Response:
    """503 when no worker is up for the default model, or the job store does not answer."""
    shape = seed_health(parts())
    text = shape.model_dump_json(exclude_unset=True)
    return json_answer(text, 200 if shape.status == "healthy" else 503)


def _unhealthy(model: str, code: Literal["no_worker", "store_unavailable"]) -> SeedHealthOut:
    return SeedHealthOut(status="unhealthy", model=model, device=None, torch_version=None, code=code)


def seed_out(parts: Parts, job: Job) -> SeedOut:
    """Raises the job's own failure, NoTranscript when it was canceled."""
    if job.status is Status.FAILED and job.failure:
        raise error_class(job.failure.code)(job.failure.detail)
    if job.status is not Status.COMPLETED:
        raise NoTranscript(f"The job was {job.status}.")
    return SeedOut(
        transcript=read_transcript(parts, job).text,
        metadata=SeedMetadataOut(
            audio_duration_sec=job.media.duration_s,
            processing_time_sec=job.timings.total_s,
            inference_time_sec=job.timings.inference_s,
            rtf=job.timings.rtf,
            device=job.model.device if job.model else None,
        ),
    )


def seed_health(parts: Parts) -> SeedHealthOut:
    model = parts.models[0].name
    try:
        cards = [card for worker in parts.fleet.live() for card in worker.models if card.name == model]
    except StoreUnavailable:
        return _unhealthy(model, "store_unavailable")
    if not cards:
        return _unhealthy(model, "no_worker")
    card = cards[0]
    return SeedHealthOut(
        status="healthy", model=model, device=card.device, torch_version=card.details.get("torch")
    )
