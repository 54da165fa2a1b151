"""The seed's two routes: its answer shape, and failures that are failures."""

import threading
from io import BytesIO

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from api.parts import Parts
from shared.job import Failure
from shared.settings import Settings
from tests.support.worker_hand import WorkerHand, window


def transcribe(client: FlaskClient, recording: bytes, field: str = "audio_file") -> TestResponse:
    return client.post("/transcribe", data={field: (BytesIO(recording), "talk.wav")})


def when_submitted(client: FlaskClient, act: str, worker: WorkerHand) -> threading.Thread:
    """Does `act` with the first job there is, beside the caller."""

    def run() -> None:
        while not (jobs := client.application.test_client().get("/v1/jobs").json["jobs"]):
            pass
        if act == "complete":
            worker.complete(jobs[0]["id"], window(0, 0.0, 1.5, "Good morning."))
        elif act == "fail":
            worker.fail(jobs[0]["id"], Failure("no_audio", "The file holds no audio track.", False))
        else:
            client.application.test_client().post(jobs[0]["links"]["cancel"])

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.mark.parametrize("field", ["audio_file", "file"])
def test_transcript_in_the_seeds_shape(
    client: FlaskClient, recording: bytes, worker: WorkerHand, field: str
) -> None:
    thread = when_submitted(client, "complete", worker)

    answer = transcribe(client, recording, field)
    thread.join()

    assert answer.status_code == 200
    assert answer.json["transcript"] == "Good morning."
    metadata = answer.json["metadata"]
    assert set(metadata) == {
        "audio_duration_sec",
        "processing_time_sec",
        "inference_time_sec",
        "rtf",
        "device",
    }
    assert (metadata["audio_duration_sec"], metadata["inference_time_sec"]) == (30.0, 0.25)
    assert metadata["device"] == "cpu"


@pytest.mark.parametrize(
    ("act", "status", "code"), [("fail", 422, "no_audio"), ("cancel", 409, "no_transcript")]
)
def test_job_without_transcript_is_a_problem(
    client: FlaskClient, recording: bytes, worker: WorkerHand, act: str, status: int, code: str
) -> None:
    thread = when_submitted(client, act, worker)

    answer = transcribe(client, recording)
    thread.join()

    assert (answer.status_code, answer.json["code"]) == (status, code)
    assert answer.content_type == "application/problem+json"


class TestOutOfTime:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"max_wait_s": 0.05})

    def test_gives_the_job_which_goes_on(self, client: FlaskClient, recording: bytes, parts: Parts) -> None:
        answer = transcribe(client, recording)

        assert answer.status_code == 202
        assert answer.headers["Location"] == answer.json["links"]["self"]
        assert parts.jobs.get(answer.json["id"]).status == "queued"


def test_other_fields_are_refused(client: FlaskClient, recording: bytes) -> None:
    assert transcribe(client, recording, "sound").json["errors"][0]["field"] == "sound"


def test_health_is_of_the_default_model(client: FlaskClient, worker: WorkerHand) -> None:
    before = client.get("/health")
    worker.come_up()
    after = client.get("/health")

    assert (before.status_code, before.json["status"]) == (503, "unhealthy")
    assert (after.status_code, after.json) == (
        200,
        {"status": "healthy", "model": "synthetic-en", "device": "cpu", "torch_version": "2.13.0"},
    )
