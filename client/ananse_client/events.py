"""Following a job: the event stream, resumed where it broke, and asking now and then where there is none."""

import json
import math
from collections.abc import Iterable, Iterator
from typing import Any

from ananse_client.errors import Unreachable, error_of
from ananse_client.flows import Flow, Listen, Patience, Pause, Reply, Send, Tell, problem_of
from ananse_client.looking import get, path_of
from ananse_client.reading import read
from ananse_client.shapes import Event, Job, Segment

_SILENCE_S = 60.0
"""The stream is pinged every 15 s: silent for so long, it is dead."""
_ASK_EVERY_S = 1.0
_ASKS = 15
"""So often the job is asked for before the stream is tried again."""
_GONE = (404, 401, 403, 410, 422)


def follow(patience: Patience, job_id: str, after: str = "", until: float = math.inf) -> Flow[None]:
    """Tells every event up to the job's end, each once, or to `until`. Raises what `get` does."""
    while True:
        last, is_over = yield from _listen(patience, job_id, after, until)
        if is_over:
            return
        if last == after:
            # Nothing came this way: perhaps a proxy keeps streams back, or too many listen.
            if (yield from _ask(patience, job_id, until)):
                return
        else:
            yield Pause(patience.pause_s(0, None))
        after = last


def _listen(patience: Patience, job_id: str, after: str, until: float) -> Flow[tuple[str, bool]]:
    """The id of the last event, and whether there is nothing to come: the job or the time is over."""
    headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": after} if after else {})
    try:
        reply: Reply = yield Send(
            "GET", f"{path_of(job_id)}/events", headers=headers, timeout_s=_SILENCE_S, listens=True
        )
        if reply.status in _GONE:
            raise error_of(problem_of(reply))
        if reply.status == 204:
            return after, True
        if reply.status != 200 or not reply.headers.get("content-type", "").startswith("text/event-stream"):
            return after, False
        lines: list[str] = []
        while (line := (yield Listen())) is not None:
            if patience.clock() >= until:
                return after, True
            if line:
                lines.append(line)
                continue
            for event in parse(lines):
                after = event.id or after
                yield Tell(event)
                if event.is_end:
                    return after, True
            lines = []
    except Unreachable:
        return after, False
    return after, False


def _ask(patience: Patience, job_id: str, until: float) -> Flow[bool]:
    """Tells what changes, for a while; whether there is nothing to come."""
    before: Job | None = None
    for _ in range(_ASKS):
        job = yield from get(patience, job_id)
        for event in _changes(before, job):
            yield Tell(event)
        if job.has_ended or patience.clock() >= until:
            return True
        before = job
        yield Pause(_ASK_EVERY_S)
    return False


def _changes(before: Job | None, job: Job) -> Iterator[Event]:
    if before is None or (before.status, before.stage) != (job.status, job.stage):
        yield Event("state", status=job.status, stage=job.stage)
    if job.progress.total_s and (before is None or before.progress.done_s != job.progress.done_s):
        yield Event("progress", done_s=job.progress.done_s, total_s=job.progress.total_s)


def parse(lines: Iterable[str]) -> Iterator[Event]:
    """One block of the stream, without its blank line; comments and `retry` give nothing."""
    kind, id, body = "message", "", []
    for line in lines:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            kind = value
        elif name == "id":
            id = value
        elif name == "data":
            body.append(value)
    if body:
        raw: dict[str, Any] = json.loads("\n".join(body))
        told = {name: raw.get(name) for name in ("status", "stage", "done_s", "total_s")}
        segments = tuple(read(Segment, segment) for segment in raw.get("segments", ()))
        yield Event(kind, id, segments=segments, raw=raw, **told)
