"""Redis came back empty, or old: every job that was accepted is there again, as it was or as it ended."""

import hashlib
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from shared import job_files
from shared.blob_store import BlobStore
from shared.blobs import open_blobs
from shared.endings import Endings
from shared.errors import BlobUnavailable, NotFound, Rebuilding
from shared.job import Delivery, Failure, Job, Options, Status
from shared.job_store import JobStore, NewJob
from shared.ledger import PREPARE, Ledger
from shared.media import Media
from shared.outcomes import Outcomes
from shared.rebuild import Rebuild
from shared.redis_store import RedisStore
from shared.settings import Settings
from tests.support.jobs import NOW

pytestmark = pytest.mark.redis

DAY_S = 86_400.0


@pytest.fixture(params=["disk", pytest.param("objects", marks=pytest.mark.service)])
def blobs(request: pytest.FixtureRequest, settings: Settings) -> BlobStore:
    if request.param == "disk":
        return open_blobs(settings)
    own: dict[str, Any] = request.getfixturevalue("objects").settings()
    return open_blobs(Settings(**own))


@pytest.fixture
def endings(ledger: Ledger, store: RedisStore, blobs: BlobStore, settings: Settings) -> Endings:
    return Endings(ledger, Outcomes(store, blobs), settings)


@pytest.fixture
def rebuild(store: RedisStore, jobs: JobStore, blobs: BlobStore) -> Rebuild:
    made = Rebuild(store, jobs, blobs, DAY_S)
    assert made.look()
    return made


def accept(jobs: JobStore, blobs: BlobStore, job_id: str, key: str = "", **options: object) -> Job:
    """As the API does it."""
    asked = Options(**({"model": "m"} | options))  # type: ignore[arg-type]
    recording = Media("a.wav", 5, hashlib.sha256(b"sound").hexdigest())
    new = NewJob(job_id, "ama", asked, recording, idempotency_key=key, request_hash="h", audio_s=7)
    blobs.write(job_files.media(job_id), b"sound")
    job, _ = jobs.create(new, DAY_S)
    job_files.write_manifest(blobs, new)
    return job


def test_an_empty_redis_is_noticed_and_made_whole(
    rebuild: Rebuild, jobs: JobStore, blobs: BlobStore, store: RedisStore
) -> None:
    waiting = accept(jobs, blobs, "job_1", key="k", priority=3)
    rebuild.require_whole()

    store.client.flushall()
    with pytest.raises(Rebuilding):
        rebuild.require_whole()
    assert rebuild.look()

    rebuild.require_whole()
    again = jobs.get("job_1", "ama")
    assert (again.status, again.options, again.media) == (Status.QUEUED, waiting.options, waiting.media)
    assert abs((again.created_at - waiting.created_at).total_seconds()) < 5
    assert jobs.owed_s() == 7
    asked_again = NewJob(
        "job_2", "ama", waiting.options, waiting.media, idempotency_key="k", request_hash="h"
    )
    assert jobs.create(asked_again, DAY_S)[0].id == "job_1"


def test_a_store_that_takes_its_time_is_asked_several_things_at_once(
    store: RedisStore, jobs: JobStore, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = open_blobs(settings)
    for number in range(4):
        accept(jobs, blobs, f"job_{number}")
    store.client.flushall()
    read, all_ask = blobs.read, threading.Barrier(4)

    def slowly(name: str) -> bytes:
        if name.endswith("manifest.json"):
            all_ask.wait(30)
        return read(name)

    monkeypatch.setattr(blobs, "read", slowly)
    assert Rebuild(store, jobs, blobs, DAY_S).look()

    assert [jobs.get(f"job_{number}").status for number in range(4)] == [Status.QUEUED] * 4


def test_an_ended_job_is_as_it_ended(
    rebuild: Rebuild, jobs: JobStore, blobs: BlobStore, ledger: Ledger, endings: Endings, store: RedisStore
) -> None:
    done = accept(jobs, blobs, "job_done")
    endings.end(ledger.claim("job_done", PREPARE, "w"), done, Status.COMPLETED, {"done_s": 5.0})
    failed = accept(jobs, blobs, "job_failed")
    failure = Failure("corrupt_audio", "The audio is damaged.", False)
    endings.end(ledger.claim("job_failed", PREPARE, "w"), failed, Status.FAILED, {}, failure)
    assert endings.close(accept(jobs, blobs, "job_canceled"), Status.CANCELED)
    ids = ("job_done", "job_failed", "job_canceled")
    before = [jobs.get(job_id) for job_id in ids]

    store.client.flushall()
    rebuild.look()

    assert [jobs.get(job_id) for job_id in ids] == before
    assert [ledger.claim(job_id, PREPARE, "w").is_held for job_id in ids] == [False] * 3
    due_ms = store.client.zscore(store.key("expiry"), "job_done")
    assert due_ms / 1000 == pytest.approx(before[0].expires_at.timestamp(), abs=1)  # type: ignore[union-attr]
    assert jobs.owed_s() == 0


def test_an_old_copy_of_redis_does_not_undo_an_end(
    rebuild: Rebuild, jobs: JobStore, blobs: BlobStore, ledger: Ledger, endings: Endings, store: RedisStore
) -> None:
    job = accept(jobs, blobs, "job_1")
    keys = store.client.keys(store.key("*"))
    copy = {key: dump(store, key) for key in keys}
    endings.end(ledger.claim("job_1", PREPARE, "w"), job, Status.COMPLETED, {})
    ended = jobs.get("job_1")

    store.client.flushall()
    for key, value in copy.items():
        restore(store, key, value)
    assert jobs.get("job_1").status is Status.QUEUED
    store.client.set(store.key("whole"), "the run of yesterday")
    rebuild.look()

    assert jobs.get("job_1") == ended
    assert ledger.dispatch("prepare", 9, hint_s=20) == ()
    assert jobs.owed_s() == 0


def dump(store: RedisStore, key: str) -> bytes:
    return bytes(raw(store).dump(key))


def restore(store: RedisStore, key: str, value: bytes) -> None:
    raw(store).restore(key, 0, value)


def raw(store: RedisStore):  # type: ignore[no-untyped-def]
    """A client that does not take bytes for text."""
    from redis import Redis  # noqa: PLC0415

    arguments = dict(store.client.connection_pool.connection_kwargs) | {"decode_responses": False}
    return Redis(unix_socket_path=arguments["path"], db=arguments.get("db", 0))


def test_a_webhook_on_its_way_goes_on_with_the_same_bytes(
    rebuild: Rebuild, jobs: JobStore, blobs: BlobStore, ledger: Ledger, endings: Endings, store: RedisStore
) -> None:
    for job_id in ("job_open", "job_delivered"):
        assert endings.close(
            accept(jobs, blobs, job_id, webhook_url="https://example.org/hook"), Status.CANCELED
        )
    body = store.client.hget(store.key("step", "job_open", "deliver-0"), "body")
    claim = ledger.claim("job_delivered", "deliver-0", "w")
    ledger.delivered(claim, Delivery(1, NOW, 204, 0.1), "delivered")
    endings.save("job_delivered")

    store.client.flushall()
    rebuild.look()

    assert ledger.claim("job_open", "deliver-0", "w").body == body
    assert not ledger.claim("job_delivered", "deliver-0", "w").is_held
    assert [delivery.status for delivery in jobs.deliveries("job_delivered")] == [204]


def test_what_was_deleted_stays_deleted(
    rebuild: Rebuild, jobs: JobStore, blobs: BlobStore, store: RedisStore
) -> None:
    accept(jobs, blobs, "job_kept")
    accept(jobs, blobs, "job_deleted")
    blobs.remove(job_files.manifest("job_deleted"))
    jobs.delete("job_deleted")

    store.client.flushall()
    rebuild.look()

    assert jobs.get("job_kept").status is Status.QUEUED
    with pytest.raises(NotFound):
        jobs.get("job_deleted")


def test_a_job_deleted_since_the_copy_is_forgotten_again(
    rebuild: Rebuild, jobs: JobStore, blobs: BlobStore, store: RedisStore
) -> None:
    accept(jobs, blobs, "job_kept")
    accept(jobs, blobs, "job_deleted")
    blobs.remove_folder(job_files.folder("job_deleted"))
    store.client.set(store.key("whole"), "the run of yesterday")

    rebuild.look()

    with pytest.raises(NotFound):
        jobs.get("job_deleted")
    assert jobs.get("job_kept").status is Status.QUEUED


def test_both_jobs_of_one_key_are_there_if_both_were_accepted(
    rebuild: Rebuild, jobs: JobStore, blobs: BlobStore, store: RedisStore
) -> None:
    accept(jobs, blobs, "job_1", key="k")
    store.client.delete(store.key("idempotency", "ama", "k"))
    accept(jobs, blobs, "job_2", key="k")

    store.client.flushall()
    rebuild.look()

    assert {jobs.get("job_1").id, jobs.get("job_2").id} == {"job_1", "job_2"}


def test_a_recording_that_was_never_accepted_becomes_no_job(
    rebuild: Rebuild, jobs: JobStore, blobs: BlobStore, store: RedisStore
) -> None:
    blobs.write(job_files.media("job_1"), b"sound")

    store.client.flushall()
    rebuild.look()

    with pytest.raises(NotFound):
        jobs.get("job_1")


@pytest.mark.parametrize("blobs", ["disk"], indirect=True)
def test_a_file_store_that_is_gone_is_no_empty_one(
    rebuild: Rebuild, jobs: JobStore, blobs: BlobStore, store: RedisStore, tmp_path: Path
) -> None:
    accept(jobs, blobs, "job_1")
    (tmp_path / "blobs").rename(tmp_path / "unmounted")
    store.client.set(store.key("whole"), "the run of yesterday")

    with pytest.raises(BlobUnavailable):
        rebuild.look()
    assert jobs.get("job_1").status is Status.QUEUED

    (tmp_path / "unmounted").rename(tmp_path / "blobs")
    assert rebuild.look()


def test_one_at_a_time_is_at_it(rebuild: Rebuild, store: RedisStore) -> None:
    store.client.flushall()
    store.client.set(store.key("rebuilding"), "another")

    assert not rebuild.look()
    store.client.delete(store.key("rebuilding"))
    assert rebuild.look()


def test_one_manifest_that_cannot_be_read_keeps_nobody_else_waiting(
    rebuild: Rebuild, jobs: JobStore, blobs: BlobStore, store: RedisStore
) -> None:
    accept(jobs, blobs, "job_1")
    accept(jobs, blobs, "job_0")
    blobs.write(job_files.manifest("job_0"), b"{ torn")

    store.client.flushall()

    assert rebuild.look()
    rebuild.require_whole()
    assert jobs.get("job_1").status is Status.QUEUED


def test_a_manifest_of_an_earlier_version_is_read(
    rebuild: Rebuild, jobs: JobStore, blobs: BlobStore, store: RedisStore
) -> None:
    accept(jobs, blobs, "job_1")
    fields = json.loads(blobs.read(job_files.manifest("job_1")))
    for name in ("audio_s", "accepted_at"):
        del fields[name]
    blobs.write(job_files.manifest("job_1"), json.dumps(fields).encode())

    store.client.flushall()
    rebuild.look()

    assert jobs.get("job_1").status is Status.QUEUED
