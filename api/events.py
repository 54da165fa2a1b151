"""/v1/jobs/{id}/events: what happens to a job, as Server-Sent Events, from the first or Last-Event-ID."""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack

from flask import Response
from flask_openapi.blueprint import APIBlueprint

from api.jobs import find
from api.openapi import JOBS, answers
from api.parts import Parts, parts
from api.schemas import FollowHeader, JobPath, NoQuery
from api.waiting import SLICE_S
from shared.errors import DependencyError, NotFound, ServiceError
from shared.job import Job, Status
from shared.job_store import Event
from shared.transcript import WindowResult

PING_S = 15.0
_LOOK_S = 0.001
_BUSY_S = 5.0
_EXAMPLE = 'id: 1764-0\nevent: state\ndata: {"status":"running"}\n\n'
# Each message of the stream; the fields are the standard's own.
_EVENT = {
    "type": "object",
    "required": ["data"],
    "properties": {
        "id": {"type": "string"},
        "event": {"enum": ["state", "progress", "segments"]},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
}

blueprint = APIBlueprint("events", __name__, url_prefix="/v1/jobs", abp_tags=[JOBS])


@blueprint.get(
    "/<job_id>/events",
    summary="Follow a job",
    responses=answers(
        200,
        {
            "description": "`state`, `progress` and `segments` events; the stream ends when the job has.",
            "content": {"text/event-stream": {"itemSchema": _EVENT, "example": _EXAMPLE}},
        },
        NotFound,
        DependencyError,
    )
    | {"204": {"description": "The job has ended, and after this event came no other: do not come back."}},
)
def follow_job(path: JobPath, query: NoQuery, header: FollowHeader) -> Response:
    """Answers 204 when the job has ended and there is nothing after Last-Event-ID: do not come back."""
    job, after = find(path.job_id), header.last_event_id
    if job.status.is_terminal and not parts().jobs.events(job.id, after, _LOOK_S):
        return Response(status=204)
    with ExitStack() as held:
        if not held.enter_context(parts().waiting("events")):
            raise DependencyError("Too many clients are waiting.", retry_after_s=_BUSY_S)
        answer = Response(stream(parts(), job, after), content_type="text/event-stream")
        answer.headers["Cache-Control"] = "no-cache"
        answer.headers["X-Accel-Buffering"] = "no"
        answer.call_on_close(held.pop_all().close)
    return answer


def stream(parts: Parts, job: Job, after: str) -> Iterator[str]:
    """Events until the job has ended. A comment goes out now and then, so that dead clients are noticed.

    When the process stops the stream does too; the client comes again with the last id it saw.
    """
    yield "retry: 3000\n\n"
    pinged = time.monotonic()
    while not parts.stopping.is_set():
        try:
            events = parts.jobs.events(job.id, after, SLICE_S)
            ended = not events and parts.jobs.get(job.id).status.is_terminal
        except ServiceError:
            # The answer is on its way, so there is no status left to tell it by; the client comes again.
            return
        for event in events:
            after = event.id
            yield sse(event)
            ended = ended or _is_end(event)
        if ended:
            return
        if time.monotonic() - pinged >= PING_S:
            pinged = time.monotonic()
            yield ": ping\n\n"


def sse(event: Event) -> str:
    kind, body = (event.kind, event.body)
    if kind == "window":
        kind, body = "segments", _segments(WindowResult.from_json(body))
    # JSON holds no raw line breaks, so one data line is enough.
    return f"id: {event.id}\nevent: {kind}\ndata: {body}\n\n"


def _segments(window: WindowResult) -> str:
    """Segments are final for their window; their ids are given in the transcript only."""
    return json.dumps(
        {
            "start": window.start,
            "end": window.end,
            "language": window.language.code if window.language else None,
            "segments": [
                {"start": segment.start, "end": segment.end, "text": segment.text}
                for segment in window.segments
            ],
        }
    )


def _is_end(event: Event) -> bool:
    return event.kind == "state" and Status(json.loads(event.body)["status"]).is_terminal
