"""OpenAI's two audio routes over our queue: its clients work unchanged but for their base URL.

See docs/adr/0024. The answer waits for the job, however long it takes; a client that goes away cancels it."""

import json
import math
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace

from flask import Response, request
from flask_openapi.blueprint import APIBlueprint

from api.jobs import take_in
from api.openai_shapes import (
    OpenAiError,
    TextOut,
    VerboseOut,
    Wish,
    answer_text,
    our_fields,
    read_wish,
    usage,
)
from api.openapi import OPENAI, envelope_answers, json_content, openai_body
from api.parts import Parts, parts
from api.problems import envelope, error_class
from api.transcripts import read_transcript
from api.waiting import SLICE_S
from shared.errors import DependencyError, NotFound, NoTranscript, ServiceError
from shared.job import Job, Status
from shared.job_store import Event
from shared.transcript import WindowResult, joined

SILENT_S = 20.0
"""So long a failure can still have its status; then the answer begins: proxies give up on silence."""
PAD_S = 10.0
_LOOK_S = 0.001
_BUSY_S = 5.0
_PADS = {"json": " ", "verbose_json": " ", "text": "\n", "srt": "\n", "vtt": "\n"}
"""What may stand before an answer and changes nothing in it."""
_VTT_HEAD = "WEBVTT\n"

blueprint = APIBlueprint("openai", __name__, url_prefix="/v1/audio", abp_tags=[OPENAI])

_ANSWER = {
    "description": "In the `response_format` asked for; with `stream`, Server-Sent Events.",
    "content": {
        "application/json": {
            "schema": {
                "anyOf": [json_content(kind)["application/json"]["schema"] for kind in (TextOut, VerboseOut)]
            }
        },
        "text/plain": {"schema": {"type": "string"}},
        "text/event-stream": {"itemSchema": {"type": "object", "properties": {"data": {"type": "string"}}}},
    },
}


@blueprint.post(
    "/transcriptions",
    summary="OpenAI: transcribe",
    request_body=openai_body(),
    responses=envelope_answers(_ANSWER, OpenAiError),
)
def transcriptions() -> Response:
    return _answer("transcribe")


@blueprint.post(
    "/translations",
    summary="OpenAI: translate to English",
    request_body=openai_body(),
    responses=envelope_answers(_ANSWER, OpenAiError),
)
def translations() -> Response:
    return _answer("translate")


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who waits for which job. Only a job that this request made is canceled for it."""

    job: Job
    is_own: bool
    connection: socket.socket | None

    def has_gone(self) -> bool:
        """Asked of the socket: nothing is read, nothing waited for."""
        if self.connection is None:
            return False
        try:
            return self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True


def _answer(task: str) -> Response:
    wishes: list[Wish] = []

    def read(fields: Mapping[str, str]) -> Mapping[str, object]:
        wishes.append(read_wish(fields, task))
        return our_fields(fields, wishes[-1], frozenset(model.name for model in parts().models))

    with ExitStack() as held:
        # Before the upload: who may not wait must come again anyway.
        if not held.enter_context(parts().waiting("openai")):
            raise DependencyError("Too many clients are waiting.", retry_after_s=_BUSY_S)
        job, is_new = take_in("file", reads=read)
        visitor = Visitor(job, is_new, request.environ.get("gunicorn.socket"))
        if wishes[-1].stream:
            answer = Response(_streamed(parts(), visitor), content_type="text/event-stream")
            answer.headers |= {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        else:
            answer = _waited(parts(), visitor, wishes[-1])
        answer.call_on_close(held.pop_all().close)
    return answer


def _waited(parts: Parts, visitor: Visitor, wish: Wish) -> Response:
    for job in _looks(parts, visitor, SILENT_S if _can_break_off() else math.inf):
        visitor = replace(visitor, job=job)
    if visitor.job.status.is_terminal:
        return Response(_text(parts, visitor.job, wish), content_type=f"{wish.mimetype}; charset=utf-8")
    return Response(_padded(parts, visitor, wish), content_type=f"{wish.mimetype}; charset=utf-8")


def _can_break_off() -> bool:
    """Without chunks an answer that breaks off looks like a whole one: HTTP/1.0, as some proxies speak it."""
    return request.environ.get("SERVER_PROTOCOL") != "HTTP/1.0"


def _looks(parts: Parts, visitor: Visitor, seconds: float) -> Iterator[Job]:
    """The job again and again, to its end or that of the time."""
    until = time.monotonic() + seconds
    job = visitor.job
    while not job.status.is_terminal and (left := until - time.monotonic()) > 0:
        _look_up(parts, visitor)
        job = parts.jobs.wait(job.id, job.tenant, min(left, SLICE_S), until_end=True)
        yield job


def _padded(parts: Parts, visitor: Visitor, wish: Wish) -> Iterator[str]:
    """An answer that has begun: a failure breaks it off, for a whole one with status 200 would be a lie."""
    if wish.format == "vtt":
        yield _VTT_HEAD
    try:
        job = visitor.job
        while not job.status.is_terminal:
            yield _PADS[wish.format]
            *_, job = _looks(parts, replace(visitor, job=job), PAD_S)
        text = _text(parts, job, wish)
    except GeneratorExit:
        _cancel(parts, visitor)
        raise
    yield text.removeprefix(_VTT_HEAD) if wish.format == "vtt" else text


def _streamed(parts: Parts, visitor: Visitor) -> Iterator[str]:
    """A delta for each window as it is done, which is not always in the order of the recording; `done` is."""
    after, job, said, pinged, is_over = "0", visitor.job, "", time.monotonic(), False
    yield ": the job is accepted\n\n"
    try:
        while True:
            _look_up(parts, visitor)
            events = parts.jobs.events(job.id, after, _LOOK_S if is_over else SLICE_S)
            for event in events:
                after = event.id
                if text := _text_of(event):
                    yield _event("delta", {"delta": joined([said, text]).removeprefix(said)})
                    said = text
            if is_over and not events:
                break
            # Asked before the next look for events: all of them are there once it has ended.
            job = job if events else parts.jobs.get(job.id)
            is_over = job.status.is_terminal
            if time.monotonic() - pinged >= PAD_S:
                pinged = time.monotonic()
                yield ": ping\n\n"
        transcript = read_transcript(parts, _completed(job))
        yield _event("done", {"text": transcript.text, "usage": usage(transcript).model_dump()})
    except GeneratorExit:
        _cancel(parts, visitor)
        raise
    except ServiceError as error:
        yield f"data: {json.dumps(envelope(error))}\n\n"
    yield "data: [DONE]\n\n"


def _event(kind: str, body: dict[str, object]) -> str:
    name = f"transcript.text.{kind}"
    return f"event: {name}\ndata: {json.dumps({'type': name} | body)}\n\n"


def _text_of(event: Event) -> str:
    if event.kind != "window":
        return ""
    return joined(segment.text for segment in WindowResult.from_json(event.body).segments)


def _text(parts: Parts, job: Job, wish: Wish) -> str:
    return answer_text(read_transcript(parts, _completed(job)), wish)


def _completed(job: Job) -> Job:
    """Raises the job's own failure, NoTranscript when it was canceled."""
    if job.status is Status.FAILED and job.failure:
        raise error_class(job.failure.code)(job.failure.detail)
    if job.status is not Status.COMPLETED:
        raise NoTranscript(f"The job was {job.status}.")
    return job


def _look_up(parts: Parts, visitor: Visitor) -> None:
    """Raises what ends the wait: nobody waits any more, or this process is to stop."""
    if visitor.has_gone():
        _cancel(parts, visitor)
        raise NoTranscript("The client has gone.")
    if parts.stopping.is_set():
        raise DependencyError("This process stops; the job goes on.", retry_after_s=_BUSY_S)


def _cancel(parts: Parts, visitor: Visitor) -> None:
    """Nobody waits for it any more."""
    if visitor.is_own and not visitor.job.status.is_terminal:
        try:
            parts.endings.close(visitor.job, Status.CANCELED)
        except NotFound:
            return
