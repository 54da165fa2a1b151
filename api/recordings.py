"""/v1/jobs/{id}/audio: the recording back, as it came, with Range for players."""

import os
import unicodedata
from contextlib import ExitStack
from urllib.parse import quote

from flask import Response, request
from flask_openapi.blueprint import APIBlueprint
from werkzeug.wsgi import FileWrapper

from api.jobs import find
from api.openapi import JOBS, NOT_MODIFIED, answers
from api.parts import Parts, parts
from api.schemas import JobPath, NoQuery
from shared import job_files
from shared.blob_store import BlobMissing
from shared.errors import Expired, NotFound, NotReady, RangeNotSatisfiable
from shared.job import Job

_BLOCK_BYTES = 2**16
_UNKNOWN = "application/octet-stream"
# By the first word of the container's name as probing gives it. Nothing a browser would run is in here.
_MIMETYPES = {
    "wav": "audio/wav",
    "flac": "audio/flac",
    "mp3": "audio/mpeg",
    "ogg": "audio/ogg",
    "mov": "audio/mp4",
    "mp4": "audio/mp4",
    "m4a": "audio/mp4",
    "aac": "audio/aac",
    "matroska": "video/webm",
    "webm": "video/webm",
}
_BYTES = {
    "description": "The bytes that were sent.",
    "content": {mimetype: {} for mimetype in sorted({_UNKNOWN, *_MIMETYPES.values()})},
}

blueprint = APIBlueprint("recordings", __name__, url_prefix="/v1/jobs", abp_tags=[JOBS])


@blueprint.get(
    "/<job_id>/audio",
    summary="The recording back",
    responses=answers(200, _BYTES, NotFound, NotReady, Expired, RangeNotSatisfiable)
    | {"206": _BYTES}
    | NOT_MODIFIED,
)
def get_audio(path: JobPath, query: NoQuery) -> Response:
    """Takes Range and If-None-Match."""
    job = find(path.job_id)
    if not job.media.is_here and not job.status.is_terminal:
        raise NotReady("The recording is still to be fetched.")
    try:
        return _answer(parts(), job)
    except BlobMissing:
        raise Expired("The recording was deleted.") from None


def _answer(parts: Parts, job: Job) -> Response:
    with ExitStack() as opened:
        file = opened.enter_context(parts.blobs.open(job_files.media(job.id)))
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        # Not passed through directly: werkzeug would then forget to close what is open.
        answer = Response(FileWrapper(file, _BLOCK_BYTES), mimetype=_mimetype(job.media.container))
        answer.content_length = size
        answer.set_etag(job.media.sha256)
        answer.headers["Content-Disposition"] = disposition(job.media.name)
        answer.make_conditional(request, accept_ranges=True, complete_length=size)
        answer.call_on_close(opened.pop_all().close)
    return answer


def disposition(name: str) -> str:
    """RFC 6266: the name in ASCII for old readers, and whole for all others."""
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    plain = "".join(character for character in ascii_name if character not in '"\\%') or "audio"
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def _mimetype(container: str | None) -> str:
    return _MIMETYPES.get((container or "").split(",")[0], _UNKNOWN)
