"""What a receiver is told: what ended and where to read it, and nothing of what was said."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from shared.job import Failure, Job, Options, Status
from shared.webhook_body import webhook_body
from tests.support.jobs import NOW, media

FAILURE = Failure("no_audio", "The file holds no audio track", False)


def job(**options: Any) -> Job:
    wanted = Options(**({"model": "m", "webhook_url": "https://example.org/hook"} | options))
    return Job("job_1", "default", Status.RUNNING, wanted, media(), NOW)


def told(body: bytes | None) -> dict[str, Any]:
    assert body is not None
    event: dict[str, Any] = json.loads(body)
    return event


def test_a_completed_job_is_told_with_its_links() -> None:
    event = told(webhook_body(job(metadata={"order": "7"}), Status.COMPLETED))

    assert event["type"] == "job.completed"
    assert event["data"] == {
        "id": "job_1",
        "status": "completed",
        "error": None,
        "metadata": {"order": "7"},
        "links": {"self": "/v1/jobs/job_1", "transcript": "/v1/jobs/job_1/transcript"},
    }
    told_at = datetime.fromisoformat(event["timestamp"])
    assert abs((datetime.now(UTC) - told_at).total_seconds()) < 60


def test_a_failed_job_is_told_with_its_code() -> None:
    event = told(webhook_body(job(), Status.FAILED, FAILURE))

    assert (event["type"], event["data"]["status"]) == ("job.failed", "failed")
    assert event["data"]["error"] == {
        "code": "no_audio",
        "detail": "The file holds no audio track",
        "retryable": False,
    }


@pytest.mark.parametrize("public_url", ["https://speech.example.org", "https://speech.example.org/"])
def test_links_lead_to_the_service_s_own_address(public_url: str) -> None:
    links = told(webhook_body(job(), Status.COMPLETED, public_url=public_url))["data"]["links"]

    assert links["self"] == "https://speech.example.org/v1/jobs/job_1"


def test_the_client_s_secrets_and_names_are_not_told() -> None:
    secretive = job(webhook_auth_header_name="X-Key", webhook_auth_header_value="opensesame", prompt="hush")

    body = webhook_body(secretive, Status.COMPLETED) or b""

    assert not {word for word in (b"opensesame", b"hush", b"speech.wav", b"example.org") if word in body}


def test_nobody_who_wants_to_know_is_nobody_told() -> None:
    assert webhook_body(job(webhook_url=None), Status.COMPLETED) is None
