"""When a job will be done, by what is known of it and of the workers; and how long a file seems to be."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import soundfile
from flask import Flask
from flask.testing import FlaskClient

from api.app import create_app
from api.durations import HEAD_BYTES, guess_duration_s
from api.estimates import Speed, Speeds, estimate, retry_after_s
from api.parts import Parts
from shared.fleet import Fleet, WorkerState
from shared.job import Job, Options, Status
from shared.job_store import Ahead
from shared.media import Media
from shared.models import Abilities, ModelCard
from shared.redis_store import RedisStore
from shared.settings import Settings
from tests.api.conftest import Submit
from tests.fakes import SteppedClock
from tests.support.recording_queue import RecordingQueue
from tests.support.worker_hand import WorkerHand

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SAMPLES = Path(__file__).parents[2] / "models" / "samples"


def job(status: Status, **more: object) -> Job:
    fields = {"started_at": NOW - timedelta(seconds=10), "total_s": 100.0} | more
    media = Media("a", 1, "0")
    return Job("job_1", "default", status, Options("m"), media, NOW, **fields)  # type: ignore[arg-type]


def eta_s(one: Job, speed: Speed | None = None) -> float | None:
    return estimate(one, Ahead(0, 0.0, 100.0), speed, NOW).eta_s


def test_a_running_job_is_judged_by_its_pace_and_before_by_what_it_owes() -> None:
    assert eta_s(job(Status.RUNNING, done_s=25.0), speed=Speed(50.0, 25.0)) == 30.0
    assert eta_s(job(Status.RUNNING, done_s=120.0)) == 0.0
    assert eta_s(job(Status.RUNNING)) is None
    assert eta_s(job(Status.RUNNING), speed=Speed(50.0, 25.0)) == 4.0


def test_a_waiting_job_is_judged_by_what_is_ahead_and_all_workers_do() -> None:
    told = estimate(job(Status.QUEUED), Ahead(3, 500.0, 100.0), Speed(50.0, 25.0), NOW)

    assert (told.files, told.ahead_s, told.eta_s) == (3, 500.0, 14.0)
    assert eta_s(job(Status.QUEUED)) is None


def test_when_to_come_back_is_when_the_excess_is_done() -> None:
    assert retry_after_s(1500, 1000, Speed(10.0, 10.0)) == 50
    assert retry_after_s(1000, 1000, Speed(10.0, 10.0)) == 5
    assert retry_after_s(1e9, 1000, Speed(10.0, 10.0)) == 3600
    assert retry_after_s(1500, 1000, None) == 60


def card(name: str) -> ModelCard:
    abilities = Abilities(("en",), ("transcribe",), True, False, False, False)
    return ModelCard(name, "somewhere", "r1", "cpu", "float32", 1, abilities)


@pytest.mark.redis
def test_speed_is_that_of_live_workers_and_known_before_they_have_worked(store: RedisStore) -> None:
    fleet, clock = Fleet(store), SteppedClock()
    speeds = Speeds(fleet, clock)
    assert speeds.of("m") is None

    fleet.beat(WorkerState("w-1", (card("m"),), {}, draining=True, rtfx={"m": 99.0}))
    assert speeds.of("m") is None
    fleet.beat(WorkerState("w-2", (card("m"),), {}, rtfx={"m": 20.0}))
    fleet.beat(WorkerState("w-3", (card("m"),), {}))
    assert speeds.of("m") is None
    clock.advance(1)

    # The third has not worked yet: the last figure of any worker stands for it.
    assert speeds.of("m") == Speed(40.0, 20.0)


@pytest.fixture
def full(settings: Settings, store: RedisStore, app: Flask) -> FlaskClient:
    """Another app on the same stores, which owes as much as it takes after its first job."""
    tight = settings.model_copy(update={"max_backlog_s": 0.1})
    return create_app(tight, RecordingQueue()).test_client()


def send(client: FlaskClient, recording: bytes, **headers: str):  # type: ignore[no-untyped-def]
    return client.post("/v1/jobs", data=recording, content_type="audio/wav", headers=headers)


@pytest.mark.redis
def test_a_backlog_at_its_bound_takes_no_more(full: FlaskClient, recording: bytes) -> None:
    assert send(full, recording).status_code == 202

    for answer in (send(full, recording), send(full, recording, **{"Idempotency-Key": "k"})):
        assert (answer.status_code, answer.json["code"]) == (503, "backlog_full")
        assert answer.headers["Retry-After"] == "60"
    assert len(full.get("/v1/jobs").json["jobs"]) == 1


@pytest.mark.redis
def test_what_was_accepted_is_told_again_however_full_it_is(full: FlaskClient, recording: bytes) -> None:
    first, again = (send(full, recording, **{"Idempotency-Key": "k"}) for _ in range(2))

    assert (again.status_code, again.json["id"]) == (202, first.json["id"])


@pytest.mark.redis
def test_a_worker_gets_the_backlog_down(
    client: FlaskClient, submit: Submit, parts: Parts, worker: WorkerHand
) -> None:
    worker.come_up()
    job_id = submit()["id"]
    assert parts.jobs.owed_s() == pytest.approx(0.101, abs=0.001)
    assert client.get(f"/v1/jobs/{job_id}").json["progress"]["eta_s"] == 0.0

    worker.complete(job_id)

    assert parts.jobs.owed_s() == 0


@pytest.mark.parametrize("name", ["short-1.flac", "five-minutes.flac"])
def test_flac_says_how_long_it_is(name: str) -> None:
    content = (SAMPLES / name).read_bytes()
    assert guess_duration_s(content[:HEAD_BYTES], len(content)) == pytest.approx(
        soundfile.info(SAMPLES / name).duration, abs=0.01
    )


def test_wav_says_how_long_it_is(recording: bytes) -> None:
    assert guess_duration_s(recording[:HEAD_BYTES], len(recording)) == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize("head", [b"", b"RIFF", b"fLaC", b"RIFF" + bytes(60), b"fLaC" + bytes(60), b"ID3"])
def test_anything_else_is_judged_by_its_size(head: bytes) -> None:
    assert guess_duration_s(head, 160_000) == 10.0


def test_no_file_is_longer_than_two_days() -> None:
    one_hertz = b"RIFF" + bytes(4) + b"WAVEfmt " + bytes(12) + (2).to_bytes(4, "little") + bytes(32)
    assert guess_duration_s(one_hertz, 10**9) == 48 * 3600
