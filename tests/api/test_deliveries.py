"""The webhook log, and a delivery made once more."""

import pytest
from flask.testing import FlaskClient

from api.parts import Parts
from shared.job import Delivery, Status
from shared.ledger import DELIVER, DELIVER_QUEUE, Hint
from tests.api.conftest import Submit
from tests.support.jobs import NOW
from tests.support.recording_queue import RecordingQueue
from tests.support.worker_hand import WorkerHand

URL = "https://hooks.example/in?token=marker"


@pytest.fixture
def failed(submit: Submit, parts: Parts, client: FlaskClient) -> str:
    """A canceled job whose receiver said that it is gone."""
    job_id: str = submit(webhook_url=URL)["id"]
    client.post(f"/v1/jobs/{job_id}/cancel")
    claim = parts.ledger.claim(job_id, DELIVER, "w")
    parts.ledger.delivered(claim, Delivery(1, NOW, 410, 0.25, None, "no more"), "gone")
    return job_id


def replay(client: FlaskClient, job_id: str, number: object = 1) -> object:
    return client.post(f"/v1/jobs/{job_id}/deliveries/{number}/replay")


def test_the_log_says_status_duration_and_the_start_of_the_answer(client: FlaskClient, failed: str) -> None:
    (row,) = client.get(f"/v1/jobs/{failed}/deliveries").json["deliveries"]

    assert (row["attempt"], row["status"], row["duration_s"], row["answer"]) == (1, 410, 0.25, "no more")


def test_a_delivery_is_made_once_more(
    client: FlaskClient, failed: str, worker: WorkerHand, tasks: RecordingQueue
) -> None:
    worker.come_up()

    answer = replay(client, failed)

    assert answer.status_code == 202
    assert answer.json["webhook"] == {"url": "https://hooks.example/in", "status": "pending"}
    assert tasks.sent[-1] == (DELIVER_QUEUE, Hint(failed, DELIVER))


@pytest.mark.parametrize("number", [2, 10**9, 10**12, 0, -1, "x"])
def test_there_is_no_other_delivery(client: FlaskClient, failed: str, number: object) -> None:
    assert replay(client, failed, number).status_code in (404, 422)


def test_a_job_without_a_webhook_has_none(submit: Submit, client: FlaskClient) -> None:
    job_id = submit()["id"]
    client.post(f"/v1/jobs/{job_id}/cancel")

    answer = replay(client, job_id)

    assert (answer.status_code, answer.json["code"]) == (404, "not_found")


def test_an_unknown_job_s_is_as_unknown(client: FlaskClient, failed: str) -> None:
    assert replay(client, "job_x").json["code"] == "not_found"


def test_of_an_expired_job_nothing_is_sent_any_more(client: FlaskClient, failed: str, parts: Parts) -> None:
    parts.jobs.expire(failed, 60)
    assert parts.jobs.get(failed).status is Status.EXPIRED

    assert replay(client, failed).json["code"] == "expired"
