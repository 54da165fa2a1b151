"""The event stream: from the first, from where one left off, and its end."""

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from flask.testing import FlaskClient

from api import events
from api.parts import Parts
from shared.job_store import Event, JobStore
from shared.redis_store import RedisStore
from tests.api.conftest import Submit
from tests.support.worker_hand import WorkerHand, window


def parse(text: str) -> list[dict[str, Any]]:
    """Events of a stream: id, kind, body."""
    blocks = [
        dict(line.split(": ", 1) for line in block.splitlines()) for block in text.split("\n\n") if block
    ]
    return [
        {"id": block["id"], "kind": block["event"], "body": json.loads(block["data"])}
        for block in blocks
        if "event" in block
    ]


def test_ended_job_is_told_from_the_first_to_the_last(
    client: FlaskClient, submit: Submit, worker: WorkerHand
) -> None:
    job = submit()
    worker.complete(job["id"], window(0, 0.0, 1.5, "Good\n\nmorning."))

    answer = client.get(job["links"]["events"])

    told = parse(answer.text)
    assert answer.content_type == "text/event-stream"
    assert answer.headers["Cache-Control"] == "no-cache"
    assert answer.headers["X-Accel-Buffering"] == "no"
    assert [event["body"]["status"] for event in told if event["kind"] == "state"] == [
        "queued",
        "running",
        "completed",
    ]
    (segments,) = [event["body"] for event in told if event["kind"] == "segments"]
    assert segments["segments"] == [{"start": 0.0, "end": 1.5, "text": "Good\n\nmorning."}]
    assert {"done_s": 1.5, "total_s": 30.0} in [event["body"] for event in told]


def test_goes_on_after_the_last_event_seen(client: FlaskClient, submit: Submit, worker: WorkerHand) -> None:
    job = submit()
    worker.complete(job["id"])
    told = parse(client.get(job["links"]["events"]).text)

    rest = client.get(job["links"]["events"], headers={"Last-Event-ID": told[2]["id"]})

    assert parse(rest.text) == told[3:]


def test_nothing_left_is_204_so_that_nobody_comes_back(
    client: FlaskClient, submit: Submit, worker: WorkerHand
) -> None:
    job = submit()
    worker.complete(job["id"])
    last = parse(client.get(job["links"]["events"]).text)[-1]["id"]

    answer = client.get(job["links"]["events"], headers={"Last-Event-ID": last})

    assert (answer.status_code, answer.data) == (204, b"")


def test_live_events_come_as_they_happen(client: FlaskClient, submit: Submit, worker: WorkerHand) -> None:
    job = submit()
    stream = iter(client.get(job["links"]["events"], buffered=False).response)
    assert b"retry" in next(stream)
    assert b"queued" in next(stream)
    timer = threading.Timer(0.05, lambda: worker.complete(job["id"]))
    timer.start()

    rest = b"".join(stream)
    timer.join()

    assert parse(rest.decode())[-1]["body"] == {"status": "completed"}


def test_silent_job_is_pinged(client: FlaskClient, submit: Submit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "SLICE_S", 0.01)
    monkeypatch.setattr(events, "PING_S", 0.0)
    job = submit()
    answer = client.get(job["links"]["events"], buffered=False)
    stream = iter(answer.response)

    assert any(block == b": ping\n\n" for block, _ in zip(stream, range(5), strict=False))
    answer.close()


class Racing(JobStore):
    """Whose job ends between a look that finds no event and the question whether it has ended."""

    def __init__(self, store: RedisStore, end: Callable[[], None]) -> None:
        super().__init__(store)
        self._end = end

    def events(self, job_id: str, after: str, wait_s: float) -> tuple[Event, ...]:
        found = super().events(job_id, after, min(wait_s, 0.01))
        if not found and not self.get(job_id).status.is_terminal:
            self._end()
        return found


def test_an_end_that_comes_between_two_looks_is_told(
    submit: Submit, worker: WorkerHand, parts: Parts, store: RedisStore
) -> None:
    job_id = submit()["id"]
    racing = replace(parts, jobs=Racing(store, lambda: worker.complete(job_id)))

    told = parse("".join(events.stream(racing, parts.jobs.get(job_id), "0")))

    assert told[-1]["body"] == {"status": "completed"}
    assert [event["kind"] for event in told].count("segments") == 1


@pytest.mark.parametrize("after", ["x", "-1", "1-2-3", "9" * 30])
def test_bad_event_ids_are_refused(client: FlaskClient, submit: Submit, after: str) -> None:
    answer = client.get(submit()["links"]["events"], headers={"Last-Event-ID": after})

    assert (answer.status_code, answer.json["errors"][0]["field"]) == (422, "Last-Event-ID")


def test_closed_streams_give_their_place_back(client: FlaskClient, submit: Submit, parts: Parts) -> None:
    free = parts.waiters._value
    answer = client.get(submit()["links"]["events"], buffered=False)
    assert parts.waiters._value == free - 1

    answer.close()

    assert parts.waiters._value == free


def test_streams_end_when_the_process_stops(client: FlaskClient, submit: Submit, parts: Parts) -> None:
    job = submit()
    parts.stopping.set()

    assert parse(client.get(job["links"]["events"]).text) == []
    assert client.get(job["links"]["self"] + "?wait=5").json["status"] == "queued"
