"""Options: what is refused, with which words, and what the models' abilities decide."""

import json

import pytest
from flask.testing import FlaskClient

from api.parts import Parts
from shared.job import Options, VadOptions
from shared.settings import Settings
from tests.api.conftest import Submit
from tests.support.worker_hand import WorkerHand


def refused(client: FlaskClient, **options: str) -> tuple[int, str, list[str]]:
    """Status, code and the fields named; also that nothing but the query was at fault."""
    answer = client.post("/v1/jobs", query_string=options, data=b"sound", content_type="audio/wav")
    return (
        answer.status_code,
        answer.json.get("code", ""),
        [error["field"] for error in answer.json.get("errors", [])],
    )


def test_every_option_reaches_the_job(submit: Submit, parts: Parts) -> None:
    job = submit(
        model="synthetic-en",
        language="en",
        task="transcribe",
        word_timestamps="true",
        prompt="Ananse, Akan",
        temperature="0.4",
        vad="off",
        vad_threshold="0.3",
        vad_min_silence_s="1",
        vad_min_speech_s="0.2",
        vad_pad_s="0.1",
        start_s="1.5",
        end_s="9",
        priority="-3",
        webhook_url="https://example.org/hook",
        webhook_auth_header_name="X-Key",
        webhook_auth_header_value="one two",
        metadata='{"order": "7"}',
        tag="night",
        retention_s="600",
    )

    assert parts.jobs.get(job["id"]).options == Options(
        model="synthetic-en",
        language="en",
        task="transcribe",
        word_timestamps=True,
        prompt="Ananse, Akan",
        temperature=0.4,
        vad=VadOptions(False, 0.3, 1.0, 0.2, 0.1),
        start_s=1.5,
        end_s=9.0,
        priority=-3,
        webhook_url="https://example.org/hook",
        webhook_auth_header_name="X-Key",
        webhook_auth_header_value="one two",
        metadata={"order": "7"},
        tag="night",
        retention_s=600.0,
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bogus", "1"),
        ("hotwords", "a"),
        ("language", "english"),
        ("language", "e1"),
        ("task", "sing"),
        ("word_timestamps", "maybe"),
        ("prompt", "x" * 1001),
        ("prompt", "a\x00b"),
        ("prompt", "a\x1bb"),
        ("temperature", "1.1"),
        ("temperature", "nan"),
        ("temperature", "-0.1"),
        ("vad", "perhaps"),
        ("vad_threshold", "1"),
        ("vad_min_silence_s", "-1"),
        ("start_s", "-1"),
        ("start_s", "inf"),
        ("end_s", "soon"),
        ("priority", "11"),
        ("priority", "1.5"),
        ("webhook_url", "ftp://example.org/"),
        ("webhook_url", "https://user:pass@example.org/"),
        ("webhook_url", "https:///nowhere"),
        ("webhook_url", "https://example.org:99999/"),
        ("webhook_url", "https://example.org/a b"),
        ("webhook_url", "https://[::1/"),
        ("webhook_url", "javascript:alert(1)"),
        ("webhook_url", "https://example.org/" + "x" * 2048),
        ("webhook_auth_header_name", "Content-Length"),
        ("webhook_auth_header_name", "host"),
        ("webhook_auth_header_name", "webhook-signature"),
        ("webhook_auth_header_name", "a b"),
        ("webhook_auth_header_value", "a\r\nHost: b"),
        ("webhook_auth_header_value", "\u00e9"),
        ("metadata", "[]"),
        ("metadata", "{"),
        ("metadata", "[" * 5000),
        ("metadata", '{"a": 1}'),
        ("metadata", '{"a": "\\u0000"}'),
        ("metadata", json.dumps({"": "a"})),
        ("metadata", json.dumps({"a": "x" * 513})),
        ("metadata", json.dumps({str(n): "x" for n in range(17)})),
        ("metadata", " " * 20_000),
        ("tag", "x" * 65),
        ("tag", "a\nb"),
        ("retention_s", "0"),
        ("retention_s", "99999999"),
    ],
)
def test_wrong_option_is_refused_by_name(client: FlaskClient, name: str, value: str) -> None:
    status, code, fields = refused(client, **{name: value})

    assert (status, code) == (422, "invalid_option")
    assert any(field.split(".")[0] == name for field in fields), fields


@pytest.mark.parametrize(
    "options",
    [
        {"start_s": "5", "end_s": "5"},
        {"webhook_url": "https://example.org/", "webhook_auth_header_name": "X-Key"},
        {"webhook_url": "https://example.org/", "webhook_auth_header_value": "a"},
        {"webhook_auth_header_name": "X-Key", "webhook_auth_header_value": "a"},
    ],
)
def test_options_that_disagree_are_refused(client: FlaskClient, options: dict[str, str]) -> None:
    assert refused(client, **options)[:2] == (422, "invalid_option")


def test_half_a_surrogate_pair_in_metadata_is_refused(client: FlaskClient) -> None:
    assert refused(client, metadata='{"a": "\\ud800"}')[:2] == (422, "invalid_option")


def test_all_that_is_wrong_is_said_at_once(client: FlaskClient) -> None:
    _, _, fields = refused(client, bogus="1", priority="99", language="english")

    assert sorted(fields) == ["bogus", "language", "priority"]


def test_option_given_twice_is_refused(client: FlaskClient) -> None:
    answer = client.post("/v1/jobs?tag=a&tag=b", data=b"sound", content_type="audio/wav")

    assert answer.json["errors"] == [{"field": "tag", "message": "is given twice"}]


def test_model_that_is_not_served_is_refused(client: FlaskClient) -> None:
    assert refused(client, model="openai/whisper-large-v3")[:2] == (422, "unknown_model")


class TestTwoModels:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"models": "twi,small=openai/whisper-small"})

    def test_first_is_the_default(self, submit: Submit) -> None:
        assert submit()["options"]["model"] == "twi"
        assert submit(model="small")["model"]["name"] == "small"


@pytest.mark.parametrize(
    "options",
    [{"language": "tw"}, {"task": "translate"}, {"word_timestamps": "true"}, {"prompt": "Ananse"}],
)
def test_what_live_workers_cannot_do_is_refused(
    client: FlaskClient, worker: WorkerHand, options: dict[str, str]
) -> None:
    query = {"data": b"sound", "content_type": "audio/wav"}
    assert client.post("/v1/jobs", query_string=options, **query).status_code == 202

    worker.come_up()

    assert refused(client, **options)[:2] == (422, "unsupported_option")
    assert client.post("/v1/jobs", query_string={"language": "en"}, **query).status_code == 202
