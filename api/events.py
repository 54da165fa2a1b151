"""/v1/jobs/{id}/events: what happens to a job, as Server-Sent Events, from the first or Last-Event-ID."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

from flask import Response, request
from flask_openapi.blueprint import APIBlueprint

from api.jobs import find
from api.listening import LAST_ANSWER, HandedOver, Listener, id_of
from api.openapi import JOBS, answers
from api.outlets import PING, PING_S
from api.parts import Parts, parts
from api.schemas import FollowHeader, JobPath, NoQuery
from api.waiting import SLICE_S
from shared.errors import DependencyError, NotFound, ServiceError
from shared.job import Job, Status
from shared.job_store import Event
from shared.transcript import WindowResult

_LOOK_S = 0.001
_BUSY_S = 5.0
_RETRY = "retry: 3000\n\n"
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
        # Our server takes streams off our hands; to others they are an answer like any, that holds a thread.
        can_hand_over = LAST_ANSWER in request.environ
        places = parts().listening.places if can_hand_over else None
        if not held.enter_context(parts().waiting("events", places)):
            raise DependencyError("Too many clients are waiting.", retry_after_s=_BUSY_S)
        leave = held.pop_all().close
        answer = _handed_over(job, after, leave) if can_hand_over else _followed(job, after, leave)
    answer.headers |= {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return answer


def _followed(job: Job, after: str, leave: Callable[[], None]) -> Response:
    answer = Response(stream(parts(), job, after), content_type="text/event-stream")
    answer.call_on_close(leave)
    return answer


def _handed_over(job: Job, after: str, leave: Callable[[], None]) -> Response:
    # A client that kept the connection would send its next request to nobody.
    request.environ[LAST_ANSWER]()
    is_chunked = request.environ.get("SERVER_PROTOCOL") != "HTTP/1.0"
    listener = Listener(job.id, id_of(after), is_chunked, leave)
    answer = Response(_begun(listener), content_type="text/event-stream")
    answer.call_on_close(lambda: None if listener.is_handed_over else listener.leave())
    return answer


def _begun(listener: Listener) -> Iterator[str]:
    yield _RETRY
    listener.is_handed_over = True
    raise HandedOver(listener)


def stream(parts: Parts, job: Job, after: str) -> Iterator[str]:
    """Events until the job has ended. A comment goes out now and then, so that dead clients are noticed.

    When the process stops the stream does too; the client comes again with the last id it saw.
    """
    yield _RETRY
    pinged, is_over = time.monotonic(), False
    while not parts.stopping.is_set():
        try:
            events = parts.jobs.events(job.id, after, _LOOK_S if is_over else SLICE_S)
            if is_over and not events:
                return
            # Asked before the next look for events: those of its end are there once it has ended.
            is_over = not events and parts.jobs.get(job.id).status.is_terminal
        except ServiceError:
            # The answer is on its way, so there is no status left to tell it by; the client comes again.
            return
        for event in events:
            after = event.id
            yield sse(event)
        if any(is_end(event) for event in events):
            return
        if time.monotonic() - pinged >= PING_S:
            pinged = time.monotonic()
            yield PING.decode()


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


def is_end(event: Event) -> bool:
    return event.kind == "state" and Status(json.loads(event.body)["status"]).is_terminal
