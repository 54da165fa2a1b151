"""Transcripts: every format, by query and by Accept, and what is answered when there is none."""

import csv
import io
import threading

import pytest
from flask.testing import FlaskClient

from api.parts import Parts
from shared.job import Failure
from tests.api.conftest import Submit
from tests.support.worker_hand import WorkerHand, window

WINDOWS = (window(0, 0.0, 1.5, "Good morning."), window(1, 2.0, 3.25, "All stories are mine."))


@pytest.fixture
def link(submit: Submit, worker: WorkerHand) -> str:
    """The transcript of a completed job."""
    job = submit(
        webhook_url="https://example.org/hook?token=s3cret",
        webhook_auth_header_name="X-Key",
        webhook_auth_header_value="s3cret",
    )
    worker.complete(job["id"], *WINDOWS)
    found: str = job["links"]["transcript"]
    return found


def test_json_is_the_whole_transcript_without_secrets(client: FlaskClient, link: str) -> None:
    answer = client.get(link)

    assert answer.content_type == "application/json"
    assert answer.json["text"] == "Good morning. All stories are mine."
    assert [segment["id"] for segment in answer.json["segments"]] == [0, 1]
    assert answer.json["segments"][1]["end"] == 3.25
    assert answer.json["partial"] is False
    assert answer.json["options"]["webhook_url"] == "https://example.org/hook"
    assert "s3cret" not in answer.text


def test_waits_for_the_end_when_asked_to(client: FlaskClient, submit: Submit, worker: WorkerHand) -> None:
    job = submit()
    timer = threading.Timer(0.1, lambda: worker.complete(job["id"], *WINDOWS))
    timer.start()

    answer = client.get(f"{job['links']['transcript']}?wait=5&format=text")
    timer.join()

    assert answer.text == "Good morning.\nAll stories are mine.\n"


@pytest.mark.parametrize(
    ("chosen", "content_type", "text"),
    [
        ("text", "text/plain; charset=utf-8", "Good morning.\nAll stories are mine.\n"),
        (
            "srt",
            "application/x-subrip",
            "1\n00:00:00,000 --> 00:00:01,500\nGood morning.\n\n"
            "2\n00:00:02,000 --> 00:00:03,250\nAll stories are mine.\n",
        ),
        (
            "vtt",
            "text/vtt; charset=utf-8",
            "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nGood morning.\n\n"
            "00:00:02.000 --> 00:00:03.250\nAll stories are mine.\n",
        ),
        (
            "tsv",
            "text/tab-separated-values; charset=utf-8",
            "start\tend\ttext\n0\t1500\tGood morning.\n2000\t3250\tAll stories are mine.\n",
        ),
        (
            "csv",
            "text/csv; charset=utf-8",
            "start,end,text\r\n0,1500,Good morning.\r\n2000,3250,All stories are mine.\r\n",
        ),
    ],
)
def test_formats_by_query_and_by_accept(
    client: FlaskClient, link: str, chosen: str, content_type: str, text: str
) -> None:
    by_query = client.get(f"{link}?format={chosen}", headers={"Accept": "application/json"})
    by_accept = client.get(link, headers={"Accept": content_type.split(";")[0]})

    assert by_query.text == by_accept.text == text
    assert by_query.content_type == by_accept.content_type == content_type
    assert "Accept" in by_accept.headers["Vary"]


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("*/*", "application/json"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "application/json"),
        ("text/vtt;q=0.3, text/csv;q=0.7", "text/csv"),
        ("text/vtt;q=0, text/plain", "text/plain"),
        ("text/*", "text/plain"),
        ("", "application/json"),
    ],
)
def test_accept_is_weighed(client: FlaskClient, link: str, accept: str, content_type: str) -> None:
    assert client.get(link, headers={"Accept": accept}).mimetype == content_type


@pytest.mark.parametrize("accept", ["image/png", "application/json;q=0"])
def test_what_cannot_be_given_is_406(client: FlaskClient, link: str, accept: str) -> None:
    answer = client.get(link, headers={"Accept": accept})

    assert (answer.status_code, answer.json["code"]) == (406, "not_acceptable")


def test_subtitles_are_shaped_as_asked(client: FlaskClient, submit: Submit, worker: WorkerHand) -> None:
    job = submit()
    worker.complete(job["id"], window(0, 0.0, 4.0, "Good morning to you all. All stories are mine."))

    def cues(query: str) -> list[str]:
        return client.get(f"{job['links']['transcript']}?format={query}").text.split("\n\n")

    assert len(cues("srt")) == 1
    assert cues("srt&max_line_chars=16&max_lines=2") == [
        "1\n00:00:00,000 --> 00:00:02,087\nGood morning\nto you all.",
        "2\n00:00:02,174 --> 00:00:04,000\nAll stories\nare mine.\n",
    ]
    assert cues("srt&max_line_chars=42&max_lines=1&min_gap_s=0.5")[0].splitlines()[1].endswith("00:00:01,674")
    assert "<00:00:00.435>morning" in cues("vtt&word_cues=true")[1]


@pytest.mark.parametrize("query", ["max_line_chars=0", "max_lines=99", "max_cps=x", "min_gap_s=-1"])
def test_shapes_that_cannot_be_are_refused(client: FlaskClient, link: str, query: str) -> None:
    assert client.get(f"{link}?format=srt&{query}").status_code == 422


def test_unknown_format_is_refused(client: FlaskClient, link: str) -> None:
    assert client.get(f"{link}?format=docx").status_code == 422


def test_formulas_are_guarded_on_request_only(
    client: FlaskClient, submit: Submit, worker: WorkerHand
) -> None:
    job = submit()
    worker.complete(job["id"], window(0, 0.0, 1.0, "=1+1"))

    def cell(query: str) -> str:
        return list(csv.reader(io.StringIO(client.get(job["links"]["transcript"] + query).text)))[1][2]

    assert cell("?format=csv") == "=1+1"
    assert cell("?format=csv&guard_formulas=true") == "'=1+1"


def test_none_before_the_end(client: FlaskClient, submit: Submit) -> None:
    answer = client.get(submit()["links"]["transcript"])

    assert (answer.status_code, answer.json["code"]) == (409, "not_ready")
    assert answer.headers["Retry-After"] == "2"


def test_none_of_a_failed_job(client: FlaskClient, submit: Submit, worker: WorkerHand) -> None:
    job = submit()
    worker.fail(job["id"], Failure("no_audio", "The file holds no audio track.", False))

    answer = client.get(job["links"]["transcript"])

    assert (answer.status_code, answer.json["code"]) == (409, "no_transcript")


def test_gone_after_expiry(client: FlaskClient, submit: Submit, worker: WorkerHand, parts: Parts) -> None:
    job = submit()
    worker.complete(job["id"])
    parts.blobs.remove_folder(f"jobs/{job['id']}")
    parts.jobs.expire(job["id"], 60)

    answers = [client.get(job["links"][name]) for name in ("transcript", "audio")]

    assert [answer.status_code for answer in answers] == [410, 410]
    assert {answer.json["code"] for answer in answers} == {"expired"}


def test_canceled_job_gives_what_is_done(client: FlaskClient, submit: Submit, worker: WorkerHand) -> None:
    job = submit()
    whole, running, _ = worker.cut(worker.begin(job["id"]), parts=3)
    worker.keep(running, window(0, 31.0, 33.0, "second"))
    worker.keep(whole, window(0, 0.0, 2.0, "first"))
    worker.store_part(whole, window(0, 0.0, 2.0, "first"))
    client.post(job["links"]["cancel"])

    transcript = client.get(job["links"]["transcript"]).json

    assert transcript["partial"] is True
    assert transcript["text"] == "first second"
    assert transcript["duration_s"] == 90.0


def test_job_canceled_before_it_began_gives_an_empty_one(client: FlaskClient, submit: Submit) -> None:
    job = submit()
    client.post(job["links"]["cancel"])

    transcript = client.get(job["links"]["transcript"]).json

    assert (transcript["text"], transcript["segments"], transcript["partial"]) == ("", [], True)
