"""Webhooks as the service signs them are believed, all others are not."""

import json
from datetime import UTC, datetime

import pytest

from ananse_client import webhooks
from ananse_client.errors import InvalidSignature
from worker.webhooks import signed_headers

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
ERROR = {"code": "no_audio", "detail": "", "retryable": False}
JOB = {"id": "job_1", "status": "failed", "metadata": {"order": "7"}, "error": ERROR}
BODY = json.dumps({"type": "job.failed", "data": JOB}).encode()
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def verify(
    body: bytes = BODY, secret: object = SECRET, age_s: float = 0.0, **headers: str
) -> webhooks.WebhookEvent:
    sent = signed_headers("msg_1", NOW, BODY, [SECRET]) | headers
    shown = {name.title(): value for name, value in sent.items()}
    return webhooks.verify(body, shown, secret, now=NOW.timestamp() + age_s)  # type: ignore[arg-type]


def test_the_services_own_is_read() -> None:
    event = verify()

    assert (event.id, event.type, event.job_id, event.status) == ("msg_1", "job.failed", "job_1", "failed")
    assert event.metadata == {"order": "7"}
    assert event.error is not None
    assert event.error.code == "no_audio"


def test_either_secret_will_do_while_one_is_exchanged() -> None:
    assert verify(secret=[OTHER, SECRET]).job_id == "job_1"


@pytest.mark.parametrize(
    "forged",
    [
        {"body": BODY + b" "},
        {"secret": OTHER},
        {"age_s": 301.0},
        {"age_s": -301.0},
        {"webhook-id": "msg_2"},
        {"webhook-timestamp": "x"},
        {"webhook-signature": "v1,"},
        {"webhook-signature": "v2,é"},
    ],
)
def test_what_is_not_is_refused(forged: dict[str, object]) -> None:
    with pytest.raises(InvalidSignature):
        verify(**forged)  # type: ignore[arg-type]


def test_missing_headers_are_named() -> None:
    with pytest.raises(InvalidSignature, match="webhook-id"):
        webhooks.verify(BODY, {}, SECRET)


def test_an_unreadable_secret_is_a_mistake_of_ours() -> None:
    with pytest.raises(ValueError, match="whsec_"):
        verify(secret="whsec_!")
