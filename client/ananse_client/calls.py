"""Each call to the service as a flow: what is sent, and what is read from the answer."""

import json
import math
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ananse_client.errors import JobCanceled, Problem, WaitTimeout, error_of
from ananse_client.events import follow
from ananse_client.flows import Flow, Patience, Pause, Reply, Send, call, retry_after_s
from ananse_client.looking import get, job_of, path_of
from ananse_client.reading import read
from ananse_client.recordings import Form, OnUpload
from ananse_client.shapes import Delivery, Format, Job, Model, Page, Shaping, Transcript

LONG_POLL_S = 30.0
_ANSWER_S = 30.0
_UPLOAD_ANSWER_S = 300.0
"""The last byte of a large file is out long before it is safe on a slow disk."""
_SOONEST_S = 0.5
_LOOK_AGAIN_S = 2.0

Source = str | Path


@dataclass(frozen=True, slots=True)
class Submission:
    """`idempotency_key` is made anew when it is empty; the same one never makes a second job."""

    source: Source
    options: Mapping[str, Any]
    idempotency_key: str = ""
    on_upload: OnUpload | None = None


def submit(patience: Patience, new: Submission) -> Flow[Job]:
    """Raises OSError when there is no such file."""
    reply = yield from call(patience, _submission(new))
    return job_of(reply)


def _submission(new: Submission) -> Send:
    headers = {"Idempotency-Key": new.idempotency_key or str(uuid.uuid4())}
    given = {name: value for name, value in new.options.items() if value is not None}
    if is_url(new.source):
        return Send("POST", "/v1/jobs", headers=headers, json={"audio_url": str(new.source)} | given)
    path = Path(new.source)
    fields = {name: _text(value) for name, value in given.items()}
    form = Form(path, fields, path.stat().st_size, new.on_upload)
    return Send("POST", "/v1/jobs", headers=headers | form.headers(), form=form, timeout_s=_UPLOAD_ANSWER_S)


def is_url(source: Source) -> bool:
    return isinstance(source, str) and source.lower().startswith(("http://", "https://"))


def wait(patience: Patience, job_id: str, timeout_s: float | None) -> Flow[Job]:
    """The job once it has ended. Raises WaitTimeout."""
    until = None if timeout_s is None else patience.clock() + timeout_s
    job = yield from get(patience, job_id)
    while not job.has_ended:
        left = LONG_POLL_S if until is None else min(LONG_POLL_S, until - patience.clock())
        if left <= 0:
            raise WaitTimeout(job_id, timeout_s or 0.0)
        asked_at, before = patience.clock(), job
        send = Send("GET", path_of(job_id), query={"wait": f"{left:.3f}"}, timeout_s=left + _ANSWER_S)
        reply = yield from call(patience, send)
        job = job_of(reply)
        if not job.has_ended and job.status == before.status and patience.clock() - asked_at < _SOONEST_S:
            # It did not let us wait, as when too many do.
            yield Pause(min(retry_after_s(reply) or _LOOK_AGAIN_S, max(left, _SOONEST_S)))
    return job


def transcribe(
    patience: Patience, new: Submission, timeout_s: float | None, *, tells: bool
) -> Flow[Transcript]:
    """All of it; `tells` follows the job's events on the way."""
    job = yield from submit(patience, new)
    until = math.inf if timeout_s is None else patience.clock() + timeout_s
    if tells:
        yield from follow(patience, job.id, until=until)
    left_s = None if timeout_s is None else max(until - patience.clock(), 0.0)
    try:
        completed((yield from wait(patience, job.id, left_s)))
    except WaitTimeout:
        raise WaitTimeout(job.id, timeout_s or 0.0) from None
    return (yield from transcript(patience, job.id))


def completed(job: Job) -> Job:
    """The same. Raises JobError by its code when the job ended otherwise."""
    if job.status == "completed":
        return job
    if job.error is not None:
        failure = job.error
        raise error_of(Problem(failure.code, failure.detail, retryable=failure.retryable, job_id=job.id))
    if job.status == "canceled":
        raise JobCanceled(Problem("canceled", "The job was canceled.", job_id=job.id))
    raise error_of(Problem("expired", "The job's data has expired and was deleted.", 410, job_id=job.id))


def transcript(patience: Patience, job_id: str) -> Flow[Transcript]:
    reply = yield from _transcript(patience, job_id, "json", {})
    return read(Transcript, json.loads(reply.text))


def rendered(patience: Patience, job_id: str, format: Format, shaping: Shaping) -> Flow[str]:
    return (yield from _transcript(patience, job_id, format, shaping)).text


def _transcript(patience: Patience, job_id: str, format: str, shaping: Mapping[str, Any]) -> Flow[Reply]:
    query = {"format": format} | {name: _text(value) for name, value in shaping.items() if value is not None}
    return (yield from call(patience, Send("GET", f"{path_of(job_id)}/transcript", query=query)))


def listing(patience: Patience, filters: Mapping[str, Any]) -> Flow[Page]:
    query = {name: _text(value) for name, value in filters.items() if value is not None}
    reply = yield from call(patience, Send("GET", "/v1/jobs", query=query))
    return read(Page, json.loads(reply.text))


def act(patience: Patience, job_id: str, verb: str) -> Flow[Job]:
    """`cancel`, which may be said twice, or `retry`, which makes a job each time."""
    send = Send("POST", f"{path_of(job_id)}/{verb}", is_safe=verb == "cancel")
    return job_of((yield from call(patience, send)))


def delete(patience: Patience, job_id: str) -> Flow[None]:
    yield from call(patience, Send("DELETE", path_of(job_id)))


def deliveries(patience: Patience, job_id: str) -> Flow[tuple[Delivery, ...]]:
    reply = yield from call(patience, Send("GET", f"{path_of(job_id)}/deliveries"))
    return tuple(read(Delivery, row) for row in json.loads(reply.text)["deliveries"])


def models(patience: Patience) -> Flow[tuple[Model, ...]]:
    reply = yield from call(patience, Send("GET", "/v1/models"))
    return tuple(read(Model, row) for row in json.loads(reply.text)["models"])


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return json.dumps(dict(value))
    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    return str(value)
