"""The step `fetch`: a recording comes, is told of on its way, and is then like one that was uploaded."""

import hashlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_network

import pytest

from shared import job_files
from shared.job import Status
from shared.ledger import FETCH, FINISH, PREPARE, PREPARE_QUEUE, part_step
from shared.rebuild import Rebuild
from shared.redis_store import RedisStore
from shared.settings import Settings
from tests.support.codes import Case, Doors, opened, sound
from tests.support.jobs import lapse_lease
from tests.support.keys import bearer, make_key
from tests.support.object_store import BUCKET, KEY, SECRET, ObjectStore
from tests.support.waiting import wait_until
from tests.worker.receiver import http, receiver
from worker import fetching
from worker.app import fetchers_of

pytestmark = pytest.mark.redis

LOOPBACK = (ip_network("127.0.0.0/8"),)
SOUND = sound()


@pytest.fixture
def doors(settings: Settings, store: RedisStore) -> Iterator[Doors]:
    with opened(settings, store, Case(lambda doors: None, {"fetch_allow": LOOPBACK})) as doors:
        yield doors


def status(doors: Doors, job_id: str) -> tuple[str, str | None]:
    job = doors.job(job_id)
    return job["status"], job["stage"]


def test_a_recording_that_was_fetched_is_transcribed(doors: Doors) -> None:
    with receiver(http(200, SOUND)) as server:
        shown_url = server.url(path="/talks/one.wav")
        job_id = doors.work(doors.submit_url(f"{shown_url}?sig=1"), FETCH)
        fetched = doors.job(job_id)
        doors.work(job_id, PREPARE, part_step(0), FINISH)

    job = doors.job(job_id)
    assert (fetched["status"], fetched["stage"]) == ("running", "decoding")
    assert job["status"] == Status.COMPLETED
    assert job["media"]["sha256"] == hashlib.sha256(SOUND).hexdigest()
    assert (job["media"]["size_bytes"], job["media"]["name"]) == (len(SOUND), "one.wav")
    assert job["media"]["url"] == shown_url
    assert doors.get(job_id, "/audio").data == SOUND


def test_secrets_of_the_address_go_when_the_recording_has_come(doors: Doors) -> None:
    with receiver(http(200, SOUND)) as server:
        job_id = doors.submit_url(server.url(path="/one.wav?sig=marker"))
        doors.work(job_id, FETCH)

    blobs = doors.parts.blobs
    assert not blobs.exists(job_files.source(job_id))
    assert job_files.read_manifest(blobs, job_id).media.sha256 == hashlib.sha256(SOUND).hexdigest()
    assert b"marker" not in blobs.read(job_files.manifest(job_id))


def test_a_key_has_no_more_stored_by_fetching_than_by_sending(settings: Settings, store: RedisStore) -> None:
    """Asked for all at once, while the key has nothing stored."""
    bounds = {"fetch_allow": LOOPBACK, "key_stored_bytes": 2 * len(SOUND) + 1}
    with (
        opened(settings, store, Case(lambda doors: None, bounds)) as doors,
        receiver(http(200, SOUND)) as server,
    ):
        key, secret = make_key(doors.keys)
        jobs = []
        for number in range(3):
            asked = {"audio_url": server.url(path=f"/{number}.wav"), "vad": "off"}
            sent = doors.client.post("/v1/jobs", json=asked, headers=bearer(secret))
            assert sent.status_code == 202, sent.text
            jobs.append(doors.work(sent.json["id"], FETCH))

        told = [doors.client.get(f"/v1/jobs/{one}", headers=bearer(secret)).json for one in jobs]

        assert [one["status"] for one in told] == ["running", "running", "failed"]
        assert (told[2]["error"]["code"], told[2]["error"]["retryable"]) == ("fetch_too_large", False)
        assert not doors.parts.blobs.exists(job_files.media(jobs[2]))
        assert doors.parts.usage.of(key.id).stored_bytes == 2 * len(SOUND)
        assert doors.parts.usage.recount() == 0


def test_how_far_it_is_can_be_read_meanwhile(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "_TELL_S", 0.0)
    goes_on = threading.Event()

    def in_two_pieces(connection: socket.socket) -> None:
        connection.sendall(http(200, SOUND)[: -len(SOUND)] + SOUND[:8000])
        for number in range(200):
            if goes_on.wait(0.02):
                break
            connection.sendall(SOUND[8000 + number : 8001 + number])
        else:
            number = 200
        connection.sendall(SOUND[8000 + number :])

    with receiver(in_two_pieces) as server:
        job_id = doors.submit_url(server.url())
        working = threading.Thread(target=doors.work, args=(job_id, FETCH))
        working.start()
        wait_until(lambda: (doors.job(job_id)["progress"]["done_bytes"] or 0) >= 8000)
        job = doors.job(job_id)
        goes_on.set()
        working.join()

    progress = job["progress"]
    assert (job["status"], job["stage"]) == ("running", "fetching")
    assert progress["total_bytes"] == len(SOUND)
    assert progress["fraction"] == pytest.approx(progress["done_bytes"] / len(SOUND), abs=0.001)
    after = doors.job(job_id)["progress"]
    assert (after["done_bytes"], after["total_bytes"], after["fraction"]) == (None, None, None)


def test_a_canceled_job_s_fetch_ends_on_its_way(doors: Doors) -> None:
    """A canceled job has no use for the rest, and nothing of it stays."""
    canceled, let_go = threading.Event(), threading.Event()

    def endless(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while not let_go.wait(0.01):
            connection.sendall(bytes(1000))

    with receiver(endless) as server:
        job_id = doors.submit_url(server.url())
        working = threading.Thread(target=doors.work, args=(job_id, FETCH))
        working.start()
        wait_until(lambda: doors.job(job_id)["stage"] == "fetching")
        assert doors.client.post(f"/v1/jobs/{job_id}/cancel").status_code == 200
        canceled.set()
        working.join(timeout=20)
        is_over = not working.is_alive()
        let_go.set()
        working.join()

    assert is_over
    assert status(doors, job_id) == ("canceled", None)
    assert not doors.parts.blobs.exists(job_files.media(job_id))


def test_a_worker_that_died_after_the_recording_was_kept_left_nothing_undone(
    doors: Doors, store: RedisStore
) -> None:
    """The next one has no address any more, and needs none."""
    job_id = doors.submit_url("http://127.0.0.1:9/one.wav")
    doors.parts.blobs.write(job_files.media(job_id), SOUND)
    doors.parts.blobs.remove(job_files.source(job_id))

    doors.work(job_id, FETCH)

    assert doors.job(job_id)["media"]["sha256"] == hashlib.sha256(SOUND).hexdigest()


def test_a_fetched_recording_is_found_again_when_redis_forgot_it(doors: Doors, store: RedisStore) -> None:
    with receiver(http(200, SOUND)) as server:
        job_id = doors.work(doors.submit_url(server.url()), FETCH)
    store.client.flushall()

    assert Rebuild(store, doors.parts.jobs, doors.parts.blobs, 60).look()

    assert store.client.hget(store.key("step", job_id, PREPARE), "queue") == PREPARE_QUEUE
    doors.work(job_id, PREPARE, part_step(0), FINISH)
    assert doors.job(job_id)["status"] == Status.COMPLETED


def test_a_late_worker_is_fenced(doors: Doors, store: RedisStore) -> None:
    """Two fetched it; one says so, and only one `prepare` is there."""
    ledger = doors.parts.dispatcher._ledger
    with receiver(http(200, SOUND)) as server:
        job_id = doors.submit_url(server.url())
        lapse_lease(store, ledger.claim(job_id, FETCH, "late"))
        doors.work(job_id, FETCH)

    assert store.client.smembers(store.key("steps", job_id)) == {FETCH, PREPARE}
    assert ledger.claim(job_id, FETCH, "later").outcome == "done"


def test_a_server_s_wish_for_a_pause_is_heard(doors: Doors, store: RedisStore) -> None:
    with receiver(http(503, retry_after="40")) as server:
        job_id = doors.work(doors.submit_url(server.url()), FETCH)

    due_ms = store.client.zscore(store.key("later", "fetch"), f"{job_id}/{FETCH}")
    assert due_ms - doors.parts.jobs.now_ms() > 30_000


@contextmanager
def bucketed(settings: Settings, store: RedisStore, objects: ObjectStore, *buckets: str) -> Iterator[Doors]:
    more = {
        "s3_endpoint": objects.url,
        "s3_access_key_id": KEY,
        "s3_secret_access_key": SECRET,
        "fetch_buckets": buckets,
    }
    with opened(settings, store, Case(lambda doors: None, more)) as doors:
        yield doors


@pytest.mark.service
def test_a_recording_is_fetched_from_a_bucket_that_was_opened(
    settings: Settings, store: RedisStore, objects: ObjectStore
) -> None:
    objects.client().put_object(Bucket=BUCKET, Key="talks/one two.wav", Body=SOUND)
    with bucketed(settings, store, objects, BUCKET, "other") as doors:
        answer = doors.client.post("/v1/jobs", json={"audio_url": f"s3://{BUCKET}/talks/one two.wav"})
        assert answer.status_code == 422
        objects.client().put_object(Bucket=BUCKET, Key="talks/one%20.wav", Body=SOUND)

        job_id = doors.work(doors.submit_url(f"s3://{BUCKET}/talks/one%20.wav"), FETCH)
        missing = doors.work(doors.submit_url(f"s3://{BUCKET}/talks/two.wav"), FETCH)
        gone = doors.work(doors.submit_url("s3://other/talks/one.wav"), FETCH, FETCH, FETCH)

        assert doors.job(job_id)["media"]["sha256"] == hashlib.sha256(SOUND).hexdigest()
        assert doors.job(missing)["error"]["code"] == "fetch_refused"
        assert doors.job(gone)["error"]["code"] == "fetch_failed"


@pytest.mark.service
def test_a_worker_reads_from_no_bucket_but_its_own_operator_s(
    settings: Settings, store: RedisStore, objects: ObjectStore
) -> None:
    """Whatever the API let through."""
    with bucketed(settings, store, objects, BUCKET) as doors:
        job_id = doors.submit_url(f"s3://{BUCKET}/one.wav")
        doors.settings = doors.settings.model_copy(update={"fetch_buckets": ("other",)})
        doors.work(job_id, FETCH)

        assert doors.job(job_id)["error"]["code"] == "fetch_blocked"


def test_no_bucket_is_opened_unless_it_is_named(settings: Settings) -> None:
    assert fetchers_of(settings).keys() == {"http", "https"}
