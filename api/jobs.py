"""/v1/jobs: submit, read, list, cancel, retry, delete. Views parse, call one function, render."""

import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime

from flask import Response, request
from flask_openapi.blueprint import APIBlueprint

from api.answers import DeliveriesOut, DeliveryOut, JobOut, JobsOut
from api.auth import caller, identify
from api.durations import UNSEEN_S, guess_duration_s
from api.estimates import Estimate, estimate
from api.openapi import JOBS, NOT_MODIFIED, answers, option_parameters, submit_body
from api.options import merged, query_fields, read_options
from api.parts import Parts, parts
from api.problems import one_invalid, request_id
from api.render import etag, job_out, job_path, retry_after_s
from api.requests import about, visit
from api.schemas import DeliveryPath, JobPath, JobQuery, JobsQuery, NoQuery
from api.sources import read_source
from api.submissions import new_id, refuse_when_full, replay, request_hash, resubmit, submit, submit_source
from api.uploads import FORM, Place, UploadLimits, receive
from api.waiting import wait_for
from shared import job_files
from shared.errors import (
    BacklogFull,
    Expired,
    IdempotencyMismatch,
    IncompleteUpload,
    JobEnded,
    LengthRequired,
    NotFound,
    NotReady,
    Rebuilding,
    StorageFull,
    UnknownModel,
    UnsupportedEncoding,
    UnsupportedMediaType,
    UnsupportedOption,
    UploadTooLarge,
    UrlIngestUnavailable,
)
from shared.job import Job, Status
from shared.job_store import Filters, NewJob
from shared.log import get_logger
from shared.media import Media

_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]([\x20-\x7e]{0,253}[\x21-\x7e])?")
_JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")

_log = get_logger()

blueprint = APIBlueprint("jobs", __name__, url_prefix="/v1/jobs", abp_tags=[JOBS])


@blueprint.post(
    "",
    summary="Submit a recording",
    request_body=submit_body("file"),
    openapi_extensions={"parameters": option_parameters()},
    responses=answers(
        202,
        JobOut,
        UnknownModel,
        UnsupportedOption,
        IdempotencyMismatch,
        Expired,
        LengthRequired,
        UploadTooLarge,
        UnsupportedMediaType,
        UnsupportedEncoding,
        IncompleteUpload,
        UrlIngestUnavailable,
        BacklogFull,
        StorageFull,
    ),
)
def submit_job() -> Response:
    """Answers as soon as the recording and its job are safe on disk."""
    job, is_new = take_in("file")
    answer = accepted(parts(), job)
    if not is_new:
        answer.headers["Idempotent-Replayed"] = "true"
    return answer


@blueprint.get(
    "",
    summary="List jobs, newest first",
    responses=answers(
        200,
        JobsOut,
    ),
)
def list_jobs(query: JobsQuery) -> Response:
    parts().rebuild.require_whole()
    page = parts().jobs.page(
        identify(request),
        Filters(query.status, query.model, query.tag, query.created_after, query.cursor, query.limit),
    )
    jobs = [shown(parts(), job) for job in page.jobs]
    return json_answer(JobsOut(jobs=jobs, next_cursor=page.next_cursor).model_dump_json())


@blueprint.get(
    "/<job_id>", summary="Read a job", responses=answers(200, JobOut, NotFound, Rebuilding) | NOT_MODIFIED
)
def get_job(path: JobPath, query: JobQuery) -> Response:
    """With `wait` the answer is held back until the state changes, or the time is over."""
    job = find(path.job_id)
    if query.wait > 0:
        job = wait_for(parts(), job, min(query.wait, parts().settings.max_wait_s))
    shape = shown(parts(), job)
    answer = json_answer(shape.model_dump_json())
    answer.set_etag(etag(shape), weak=True)
    if not job.status.is_terminal:
        answer.headers["Retry-After"] = str(retry_after_s(shape))
    answer.make_conditional(request)
    return answer


@blueprint.post(
    "/<job_id>/cancel", summary="Cancel a job", responses=answers(200, JobOut, NotFound, JobEnded)
)
def cancel_job(path: JobPath, query: NoQuery) -> Response:
    """The model stops within one window; what was done by then stays readable."""
    job = find(path.job_id)
    if not parts().endings.close(job, Status.CANCELED):
        job = find(path.job_id)
        if job.status is not Status.CANCELED:
            raise JobEnded(f"The job has ended as {job.status}.")
    return json_answer(shown(parts(), find(path.job_id)).model_dump_json())


@blueprint.post(
    "/<job_id>/retry",
    summary="Try a failed or canceled job again",
    responses=answers(
        202, JobOut, NotFound, NotReady, JobEnded, Expired, UploadTooLarge, BacklogFull, StorageFull
    ),
)
def retry_job(path: JobPath, query: NoQuery) -> Response:
    """A new job with the same recording and options; the old one stays as it ended."""
    job = find(path.job_id)
    if job.status is Status.EXPIRED:
        raise Expired()
    return accepted(parts(), resubmit(parts(), caller(), job, request_id(), visit().span.traceparent))


@blueprint.delete("/<job_id>", summary="Delete a job", responses=answers(204, None, NotFound))
def delete_job(path: JobPath, query: NoQuery) -> Response:
    """Recording, transcript and record; a job that has not ended is canceled first."""
    job = find(path.job_id)
    if not job.status.is_terminal:
        parts().endings.close(job, Status.CANCELED)
    # The manifest goes first: whatever happens in between, nobody takes the rest for an accepted job.
    parts().blobs.remove(job_files.manifest(job.id))
    parts().jobs.delete(job.id)
    parts().blobs.remove_folder(job_files.folder(job.id))
    _log.info("job_deleted")
    return Response(status=204)


@blueprint.get(
    "/<job_id>/deliveries",
    summary="The webhook log",
    responses=answers(200, DeliveriesOut, NotFound),
)
def list_deliveries(path: JobPath, query: NoQuery) -> Response:
    rows = parts().jobs.deliveries(find(path.job_id).id)
    shape = DeliveriesOut(
        deliveries=[
            DeliveryOut(
                attempt=row.attempt,
                at=row.at,
                status=row.status,
                duration_s=row.duration_s,
                error=row.error,
                answer=row.answer,
            )
            for row in rows
        ]
    )
    return json_answer(shape.model_dump_json())


@blueprint.post(
    "/<job_id>/deliveries/<number>/replay",
    summary="Send the webhook again",
    responses=answers(202, JobOut, NotFound, Expired),
)
def replay_delivery(path: DeliveryPath, query: NoQuery) -> Response:
    """The same message at once, with a schedule of its own; a receiver that was disabled is asked again."""
    job = find(path.job_id)
    if job.status is Status.EXPIRED:
        raise Expired()
    if path.number not in {row.attempt for row in parts().jobs.deliveries(job.id)}:
        raise NotFound("There is no such delivery.")
    replay(parts(), job)
    _log.info("webhook_replayed", delivery=path.number)
    return json_answer(shown(parts(), find(path.job_id)).model_dump_json(), 202)


Reads = Callable[[Mapping[str, str]], Mapping[str, object]]


def take_in(*file_fields: str, reads: Reads = dict) -> tuple[Job, bool]:
    """Receives the request's recording and options and makes their job; the job, and whether it is new.

    `reads` turns the request's fields into options, where they are not called as ours are.
    """
    if request.is_json:
        return _take_address(reads)
    tenant, key, query = identify(request), _idempotency_key(), query_fields(request)
    name = ""
    if request.mimetype != FORM:
        # The recording is the body: all else is known, so what is wrong is refused before it is read.
        name = query.pop("name", "")
        read_options(parts(), reads(merged(query, {})))
    refuse_when_full(parts(), caller(), key, request.content_length or 0)
    limits = UploadLimits(parts().settings.max_upload_bytes, parts().settings.upload_idle_s)
    job_id = new_id()
    place = Place(parts().blobs, job_files.media(job_id))
    with ExitStack() as held:
        with parts().tracer.span("receive") as span:
            received = held.enter_context(receive(request, place, limits, file_fields, name))
            span.note(size_bytes=received.upload.size_bytes)
        options = read_options(parts(), reads(merged(query, received.fields)))
        upload = received.upload
        parts().metrics.uploaded(upload.size_bytes)
        media = Media(upload.name, upload.size_bytes, upload.sha256)
        new = NewJob(
            job_id,
            tenant,
            options,
            media,
            request_id(),
            idempotency_key=key,
            request_hash=request_hash(media.sha256, options),
            audio_s=guess_duration_s(upload.head, upload.size_bytes),
            traceparent=visit().span.traceparent,
            key_id=caller().key_id,
        )
        job, is_new = submit(parts(), caller(), new, upload.draft)
        about(job)
        return job, is_new


def _take_address(reads: Reads) -> tuple[Job, bool]:
    """Only its address is received; a worker fetches the recording."""
    tenant, key = identify(request), _idempotency_key()
    source, fields = read_source(parts(), request)
    options = read_options(parts(), reads({**query_fields(request), **fields}))
    refuse_when_full(parts(), caller(), key, 0)
    new = NewJob(
        new_id(),
        tenant,
        options,
        Media(source.name, 0, "", url=source.shown_url),
        request_id(),
        idempotency_key=key,
        request_hash=request_hash(source.digest, options),
        audio_s=UNSEEN_S,
        traceparent=visit().span.traceparent,
        key_id=caller().key_id,
    )
    job, is_new = submit_source(parts(), caller(), new, source)
    about(job)
    return job, is_new


def find(job_id: str) -> Job:
    """Raises NotFound, in the same words for an unknown job and another tenant's; and Rebuilding."""
    if not _JOB_ID.fullmatch(job_id):
        raise NotFound("There is no such job.")
    try:
        job = parts().jobs.get(job_id, identify(request))
    except NotFound:
        # Nobody is told that a job is unknown while records are being made again.
        parts().rebuild.require_whole()
        raise
    about(job)
    return job


def shown(parts: Parts, job: Job) -> JobOut:
    if job.status.is_terminal:
        return job_out(job, Estimate())
    ahead, speed = parts.jobs.ahead(job.id), parts.speeds.of(job.options.model)
    return job_out(job, estimate(job, ahead, speed, datetime.now(UTC)))


def accepted(parts: Parts, job: Job) -> Response:
    shape = shown(parts, job)
    answer = json_answer(shape.model_dump_json(), 202)
    answer.headers["Location"] = job_path(job.id)
    answer.headers["Retry-After"] = str(retry_after_s(shape))
    return answer


def json_answer(text: str, status: int = 200) -> Response:
    return Response(text, status, content_type="application/json")


def _idempotency_key() -> str:
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return ""
    if not _IDEMPOTENCY_KEY.fullmatch(key):
        raise one_invalid("Idempotency-Key", "must be 1 to 255 printable ASCII characters")
    return key
