"""/v1/jobs/{id}/transcript: which format, whether there is one yet, and where its bytes lie."""

import re

from flask import Response, request
from flask_openapi.blueprint import APIBlueprint
from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json
from werkzeug.datastructures import MIMEAccept

from api.answers import TranscriptOut
from api.corrections import corrected, unknown
from api.formats import TABLES, to_csv, to_srt, to_vtt
from api.jobs import find, json_answer
from api.openapi import JOBS, answers, content, json_content
from api.parts import Parts, parts
from api.problems import of_validation, one_invalid
from api.render import options_out
from api.schemas import CorrectionsIn, JobPath, ShapeQuery, TranscriptQuery
from api.uploads import receive_small
from api.waiting import wait_for
from shared import job_files
from shared.blob_store import BlobMissing
from shared.errors import (
    Expired,
    LengthRequired,
    NotAcceptable,
    NotFound,
    NoTranscript,
    NotReady,
    RequestError,
    UploadTooLarge,
)
from shared.job import Job, Status
from shared.transcript import Transcript, WindowResult

_MIMETYPES = {
    "json": "application/json",
    "text": "text/plain",
    "srt": "application/x-subrip",
    "vtt": "text/vtt",
    "tsv": "text/tab-separated-values",
    "csv": "text/csv",
}
_FORMATS = {
    "description": "In the format asked for.",
    "content": json_content(TranscriptOut)
    | content("text/plain", "Good morning.\n")
    | content("application/x-subrip", "1\n00:00:00,000 --> 00:00:01,500\nGood morning.\n")
    | content("text/vtt", "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nGood morning.\n")
    | content("text/tab-separated-values", "start\tend\ttext\n0\t1500\tGood morning.\n")
    | content("text/csv", "start,end,text\r\n0,1500,Good morning.\r\n"),
}
_UNREADABLE = (NotFound, NotReady, NoTranscript, Expired, NotAcceptable)
_PART_RESULT = re.compile(r"(part-[0-9]+)\.json")
_RETRY_S = 2.0

blueprint = APIBlueprint("transcripts", __name__, url_prefix="/v1/jobs", abp_tags=[JOBS])


@blueprint.get(
    "/<job_id>/transcript",
    summary="Read the transcript",
    responses=answers(
        200,
        _FORMATS,
        *_UNREADABLE,
    ),
)
def get_transcript(path: JobPath, query: TranscriptQuery) -> Response:
    """A canceled job gives what was done, marked `partial`. With `wait` the answer waits for the end."""
    chosen = query.format or choose_format(request.accept_mimetypes)
    job = find(path.job_id)
    if query.wait > 0:
        job = wait_for(parts(), job, min(query.wait, parts().settings.max_wait_s), until_end=True)
    return _answer(job, read_transcript(parts(), job), chosen, query)


@blueprint.post(
    "/<job_id>/transcript",
    summary="Read the transcript with corrections",
    request_body={"required": True, "content": json_content(CorrectionsIn)},
    responses=answers(
        200,
        _FORMATS,
        *_UNREADABLE,
        LengthRequired,
        UploadTooLarge,
    ),
)
def correct_transcript(path: JobPath, query: ShapeQuery) -> Response:
    """As it is read, but with other words in some segments, in every format. Nothing is kept: the transcript
    stays as it was made, and who corrects it keeps the corrections."""
    chosen = query.format or choose_format(request.accept_mimetypes)
    job = find(path.job_id)
    texts = _read_corrections(parts()).texts()
    transcript = read_transcript(parts(), job)
    if ids := unknown(transcript, texts):
        raise one_invalid("corrections", f"there is no segment {ids[0]}")
    return _answer(job, corrected(transcript, texts), chosen, query)


def _read_corrections(parts: Parts) -> CorrectionsIn:
    body = receive_small(request, parts.settings.upload_idle_s)
    try:
        return CorrectionsIn.model_validate(from_json(body))
    except ValidationError as error:
        raise of_validation(error) from error
    except ValueError:
        raise RequestError("The body is not JSON.") from None


def _answer(job: Job, transcript: Transcript, chosen: str, query: ShapeQuery) -> Response:
    if chosen == "json":
        answer = json_answer(transcript_out(job, transcript).model_dump_json())
    else:
        answer = Response(_written(transcript, chosen, query), mimetype=_MIMETYPES[chosen])
    answer.vary.add("Accept")
    return answer


def _written(transcript: Transcript, chosen: str, query: ShapeQuery) -> str:
    if chosen == "csv":
        return to_csv(transcript, guard_formulas=query.guard_formulas)
    if chosen == "srt":
        return to_srt(transcript, query.shaping())
    if chosen == "vtt":
        return to_vtt(transcript, query.shaping(), word_cues=query.word_cues)
    return TABLES[chosen](transcript)


def choose_format(accept: MIMEAccept) -> str:
    """The format the client likes best; the first of the table where it does not care."""
    if not accept:
        return "json"
    best = max(_MIMETYPES, key=lambda name: accept[_MIMETYPES[name]])
    if not accept[_MIMETYPES[best]]:
        raise NotAcceptable(f"There are {', '.join(_MIMETYPES.values())}.")
    return best


def read_transcript(parts: Parts, job: Job) -> Transcript:
    """Raises NotReady, NoTranscript, Expired."""
    if not job.status.is_terminal:
        raise NotReady(retry_after_s=_RETRY_S)
    if job.status is Status.EXPIRED:
        raise Expired()
    if job.status is Status.FAILED:
        raise NoTranscript(job.failure.detail if job.failure else "")
    if job.status is Status.CANCELED:
        return _partial(parts, job)
    try:
        return Transcript.from_json(parts.blobs.read(job_files.transcript(job.id)))
    except BlobMissing:
        raise Expired() from None


def transcript_out(job: Job, transcript: Transcript) -> TranscriptOut:
    """The options are the job's own snapshot as its client may see it, not what the worker wrote down."""
    fields = _transcript.dump_python(transcript, mode="json")
    return TranscriptOut.model_validate(fields | {"options": options_out(job.options).model_dump()})


def _partial(parts: Parts, job: Job) -> Transcript:
    """Windows of finished parts lie in the blob store, those of the others in the job store."""
    found: dict[tuple[float, float], WindowResult] = {}
    for name in parts.blobs.folders(job_files.folder(job.id)):
        if part := _PART_RESULT.fullmatch(name):
            for result in _read_part(parts, job.id, part[1]):
                found[result.start, result.end] = result
    for result in parts.jobs.windows(job.id):
        found.setdefault((result.start, result.end), result)
    return Transcript.of(found.values(), job.media.duration_s or 0.0, partial=True)


def _read_part(parts: Parts, job_id: str, part: str) -> tuple[WindowResult, ...]:
    try:
        return _windows.validate_json(parts.blobs.read(job_files.part_result(job_id, part)))
    except BlobMissing:
        return ()


_transcript: TypeAdapter[Transcript] = TypeAdapter(Transcript)
_windows: TypeAdapter[tuple[WindowResult, ...]] = TypeAdapter(tuple[WindowResult, ...])
