"""Reading and moving jobs: the shape, waiting, lists, cancel, retry, delete."""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from flask.testing import FlaskClient

from api.parts import Parts
from shared.job import Delivery, Failure
from shared.ledger import Ledger
from tests.api.conftest import Submit
from tests.support.worker_hand import WorkerHand, window

BROKEN = Failure("corrupt_audio", "The audio is damaged.", False)


def test_running_job_tells_its_progress(client: FlaskClient, submit: Submit, worker: WorkerHand) -> None:
    link = submit()["links"]["self"]
    part, _ = worker.cut(worker.begin(link.rsplit("/", 1)[-1]), parts=2, part_s=30)

    before = client.get(link)
    worker.keep(part, window(0, 0.0, 15.0, "Good morning."))
    job = client.get(link).json

    seconds = {"done_s": 0.0, "total_s": 60.0, "fraction": 0.0, "eta_s": None}
    assert before.json["progress"] == seconds | {"done_bytes": None, "total_bytes": None}
    assert (job["status"], job["stage"], job["attempt"]) == ("running", "transcribing", 1)
    assert (job["progress"]["done_s"], job["progress"]["fraction"]) == (15.0, 0.25)
    assert job["progress"]["eta_s"] >= 0
    assert job["queue"]["position"] is None
    assert job["media"]["container"] == "wav"
    assert job["timings"]["queued_s"] >= 0
    assert int(before.headers["Retry-After"]) >= 1


def test_completed_job_tells_all(client: FlaskClient, submit: Submit, worker: WorkerHand) -> None:
    link = submit()["links"]["self"]
    worker.complete(link.rsplit("/", 1)[-1])

    answer = client.get(link)

    job = answer.json
    assert (job["status"], job["stage"], job["error"]) == ("completed", None, None)
    assert job["progress"]["fraction"] == 1.0
    assert job["model"] == {"name": "synthetic-en", "revision": "r1", "device": "cpu", "dtype": "float32"}
    assert job["language"] == {"code": "en", "confidence": 0.9}
    assert job["timings"]["inference_s"] == 0.25
    assert job["expires_at"] > job["finished_at"] > job["created_at"]
    assert "Retry-After" not in answer.headers


def test_failed_job_names_its_failure(client: FlaskClient, submit: Submit, worker: WorkerHand) -> None:
    link = submit()["links"]["self"]
    worker.fail(link.rsplit("/", 1)[-1], BROKEN)

    job = client.get(link).json

    assert job["status"] == "failed"
    assert job["error"] == {"code": "corrupt_audio", "detail": "The audio is damaged.", "retryable": False}


def test_unknown_and_foreign_ids_are_not_told_apart(
    client: FlaskClient, submit: Submit, parts: Parts
) -> None:
    foreign = submit()["id"]
    parts.jobs._store.client.hset(parts.jobs._store.key("job", foreign), "tenant", "another")

    def body(job_id: str) -> dict[str, str]:
        answer = client.get(f"/v1/jobs/{job_id}")
        assert answer.status_code == 404
        return {name: value for name, value in answer.json.items() if name not in ("request_id", "instance")}

    assert body(foreign) == body("job_unknown") == body("a:b") == body("x" * 200)


@pytest.mark.parametrize("method", ["cancel", "retry"])
def test_unknown_id_is_404_everywhere(client: FlaskClient, method: str) -> None:
    assert client.post(f"/v1/jobs/job_x/{method}").status_code == 404
    assert client.delete("/v1/jobs/job_x").status_code == 404
    for part in ("transcript", "audio", "deliveries", "events"):
        assert client.get(f"/v1/jobs/job_x/{part}").status_code == 404


def test_etag_stays_until_the_job_changes(client: FlaskClient, submit: Submit, worker: WorkerHand) -> None:
    link = submit()["links"]["self"]
    tag = client.get(link).headers["ETag"]

    same = client.get(link, headers={"If-None-Match": tag})
    worker.begin(link.rsplit("/", 1)[-1])
    changed = client.get(link, headers={"If-None-Match": tag})

    assert (same.status_code, same.data) == (304, b"")
    assert (changed.status_code, changed.json["status"]) == (200, "running")


class TestWait:
    def test_wakes_at_the_next_state(self, client: FlaskClient, submit: Submit, worker: WorkerHand) -> None:
        link = submit()["links"]["self"]
        began = time.monotonic()
        timer = threading.Timer(0.1, lambda: worker.begin(link.rsplit("/", 1)[-1]))
        timer.start()

        job = client.get(f"{link}?wait=50").json
        timer.join()

        assert job["status"] == "running"
        assert time.monotonic() - began < 25

    def test_gives_the_job_as_it_is_when_time_is_over(self, client: FlaskClient, submit: Submit) -> None:
        assert client.get(f"{submit()['links']['self']}?wait=0.05").json["status"] == "queued"

    def test_answers_at_once_when_too_many_wait(
        self, client: FlaskClient, submit: Submit, parts: Parts
    ) -> None:
        link = submit()["links"]["self"]
        while parts.waiters.acquire(blocking=False):
            pass
        began = time.monotonic()

        assert client.get(f"{link}?wait=50").status_code == 200
        assert client.get(f"{link}/events").status_code == 503
        assert time.monotonic() - began < 25

    @pytest.mark.parametrize("wait", ["-1", "nan", "inf", "soon"])
    def test_bad_times_are_refused(self, client: FlaskClient, submit: Submit, wait: str) -> None:
        assert client.get(f"{submit()['links']['self']}?wait={wait}").status_code == 422


class TestList:
    def test_pages_newest_first_without_gap_or_double(self, client: FlaskClient, submit: Submit) -> None:
        made = [submit()["id"] for _ in range(5)]

        seen: list[str] = []
        cursor = ""
        while cursor is not None:
            page = client.get(f"/v1/jobs?limit=2{cursor and '&cursor=' + cursor}").json
            seen += [job["id"] for job in page["jobs"]]
            cursor = page["next_cursor"]

        assert sorted(seen) == sorted(made)
        assert len(set(seen)) == 5

    def test_filters(self, client: FlaskClient, submit: Submit, worker: WorkerHand) -> None:
        night, _day = submit(tag="night")["id"], submit(tag="day")["id"]
        worker.begin(night)

        def ids(query: str) -> list[str]:
            return [job["id"] for job in client.get(f"/v1/jobs?{query}").json["jobs"]]

        assert ids("tag=night") == ids("status=running") == [night]
        assert len(ids("model=synthetic-en")) == 2
        assert ids("model=other") == ids("created_after=2100-01-01T00:00:00Z") == []
        assert len(ids("created_after=2020-01-01T00:00:00Z")) == 2

    @pytest.mark.parametrize(
        "query",
        ["limit=0", "limit=101", "status=done", "cursor=x", "cursor=1", "created_after=today", "bogus=1"],
    )
    def test_bad_queries_are_refused(self, client: FlaskClient, query: str) -> None:
        answer = client.get(f"/v1/jobs?{query}")

        assert (answer.status_code, answer.json["code"]) == (422, "invalid_option")
        assert answer.json["errors"][0]["field"] == query.split("=")[0]


class TestCancel:
    def test_queued_and_running_jobs_end(
        self, client: FlaskClient, submit: Submit, worker: WorkerHand
    ) -> None:
        queued, running = submit(), submit()
        worker.begin(running["id"])

        for job in (queued, running):
            answer = client.post(job["links"]["cancel"])
            assert (answer.status_code, answer.json["status"]) == (200, "canceled")

    def test_twice_is_fine(self, client: FlaskClient, submit: Submit) -> None:
        link = submit()["links"]["cancel"]

        assert [client.post(link).status_code for _ in range(2)] == [200, 200]

    def test_ended_otherwise_is_refused(
        self, client: FlaskClient, submit: Submit, worker: WorkerHand
    ) -> None:
        job = submit()
        worker.complete(job["id"])

        answer = client.post(job["links"]["cancel"])

        assert (answer.status_code, answer.json["code"]) == (409, "job_ended")

    def test_webhook_is_due(self, client: FlaskClient, submit: Submit) -> None:
        job = submit(webhook_url="https://example.org/hook")

        assert client.post(job["links"]["cancel"]).json["webhook"]["status"] == "pending"


class TestRetry:
    @pytest.mark.parametrize("end", ["fail", "cancel"])
    def test_makes_a_new_job_of_the_same_recording(
        self,
        client: FlaskClient,
        submit: Submit,
        worker: WorkerHand,
        recording: bytes,
        parts: Parts,
        end: str,
    ) -> None:
        old = submit(tag="night")
        worker.fail(old["id"], BROKEN) if end == "fail" else client.post(old["links"]["cancel"])

        answer = client.post(old["links"]["retry"])
        new = answer.json

        assert answer.status_code == 202
        assert answer.headers["Location"] == new["links"]["self"]
        assert (new["retry_of"], new["status"], new["options"]) == (old["id"], "queued", old["options"])
        assert parts.jobs.owed_s() > 0
        assert client.delete(old["links"]["self"]).status_code == 204
        assert client.get(new["links"]["audio"]).data == recording

    def test_is_refused_before_the_end_after_success_and_after_expiry(
        self, client: FlaskClient, submit: Submit, worker: WorkerHand, parts: Parts
    ) -> None:
        running, completed, expired = submit(), submit(), submit()
        worker.complete(completed["id"])
        worker.fail(expired["id"], BROKEN)
        parts.jobs.expire(expired["id"], 60)

        codes = [client.post(job["links"]["retry"]).json["code"] for job in (running, completed, expired)]

        assert codes == ["not_ready", "job_ended", "expired"]

    def test_is_refused_when_the_recording_is_gone(
        self, client: FlaskClient, submit: Submit, worker: WorkerHand, parts: Parts
    ) -> None:
        job = submit()
        worker.fail(job["id"], BROKEN)
        parts.blobs.remove_folder(f"jobs/{job['id']}")

        assert client.post(job["links"]["retry"]).status_code == 410


@pytest.mark.parametrize("state", ["queued", "running", "completed"])
def test_delete_leaves_no_trace(
    client: FlaskClient,
    submit: Submit,
    worker: WorkerHand,
    files: Callable[[], list[str]],
    state: str,
) -> None:
    job = submit()
    if state == "running":
        worker.begin(job["id"])
    elif state == "completed":
        worker.complete(job["id"])

    assert client.delete(job["links"]["self"]).status_code == 204

    assert client.get(job["links"]["self"]).status_code == 404
    assert client.delete(job["links"]["self"]).status_code == 404
    assert files() == []


def test_deliveries_are_the_webhook_log(client: FlaskClient, submit: Submit, ledger: Ledger) -> None:
    job = submit(webhook_url="https://example.org/hook")
    assert client.get(job["links"]["deliveries"]).json == {"deliveries": []}
    client.post(job["links"]["cancel"])
    claim = ledger.claim(job["id"], "deliver-0", "hand")
    ledger.delivered(claim, Delivery(1, datetime.now(UTC), 200, 0.02, answer="ok"), "delivered")

    (row,) = client.get(job["links"]["deliveries"]).json["deliveries"]

    assert (row["attempt"], row["status"], row["answer"]) == (1, 200, "ok")
    assert client.get(job["links"]["self"]).json["webhook"]["status"] == "delivered"
