"""What a crash left behind is put right by one worker at a time, and nothing that is needed goes."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from shared import job_files
from shared.api_keys import read
from shared.blob_store import BlobStore
from shared.blobs import open_blobs
from shared.endings import Endings
from shared.errors import NotFound
from shared.fleet import Fleet, WorkerState
from shared.job import Options, Status
from shared.job_store import JobStore, NewJob
from shared.key_ring import KeyRing
from shared.ledger import MOST_SWEPT, PREPARE, PREPARE_QUEUE, Fenced, Hint, Ledger
from shared.outcomes import Outcomes
from shared.rebuild import Rebuild
from shared.redis_store import RedisStore
from shared.settings import Settings
from shared.task_queue import Dispatcher
from shared.usage import Usage, Used
from tests.support.jobs import lapse_hint, lapse_lease, media, submit
from tests.support.keys import make_key
from tests.support.object_store import ObjectStore
from tests.support.recording_queue import RecordingQueue
from tests.support.waiting import wait_until
from tests.support.worker_context import worker_context
from worker.sweeper import INCOMING_S, Sweeper

pytestmark = pytest.mark.redis

PAUSE_S = 0.02
DAY_S = 86_400.0

Make = Callable[..., Sweeper]


@pytest.fixture
def tasks(store: RedisStore) -> RecordingQueue:
    """Where hints go: a worker is up that holds one file."""
    Fleet(store).beat(WorkerState("w-1", (), {PREPARE_QUEUE: 1}))
    return RecordingQueue()


@pytest.fixture
def make(
    settings: Settings,
    store: RedisStore,
    ledger: Ledger,
    jobs: JobStore,
    blobs: BlobStore,
    tasks: RecordingQueue,
) -> Iterator[Make]:
    """Makes sweepers, and closes those that were started."""
    started: list[Sweeper] = []
    hurried = settings.model_copy(update={"sweep_s": PAUSE_S})

    def sweeper(name: str = "w-1", *, is_started: bool = False, blobs: BlobStore = blobs) -> Sweeper:
        outcomes = Outcomes(store, blobs)
        parts = replace(
            context,
            name=name,
            blobs=blobs,
            endings=Endings(ledger, outcomes, hurried),
            dispatcher=Dispatcher(ledger, Fleet(store), tasks),
        )
        made = Sweeper(parts, store, outcomes, Rebuild(store, jobs, blobs, DAY_S))
        if is_started:
            made.start()
            started.append(made)
        return made

    with worker_context(hurried, store) as context:
        yield sweeper
        for made in started:
            made.close()


def end(store: RedisStore, blobs: BlobStore, job_id: str = "job_1") -> None:
    """A job that has ended and whose retention is over."""
    submit(store, job_id)
    blobs.write(job_files.media(job_id), b"sound")
    blobs.write(job_files.transcript(job_id), b"{}")
    assert Ledger(store).cancel(job_id, webhook=None, retention_s=60)
    fall_due(store, job_id)


def fall_due(store: RedisStore, job_id: str) -> None:
    store.client.zadd(store.key("expiry"), {job_id: 1}, xx=True)
    store.client.hset(store.key("job", job_id), "expires_at", 1)


def make_old(path: Path) -> None:
    then = time.time() - 2 * INCOMING_S
    os.utime(path, (then, then))


def folder(blobs: BlobStore, job_id: str) -> Path:
    return blobs.incoming.parent / job_files.folder(job_id)


def test_a_dead_worker_s_step_is_sent_to_another(
    make: Make, store: RedisStore, ledger: Ledger, tasks: RecordingQueue
) -> None:
    submit(store)
    lapse_lease(store, ledger.claim("job_1", PREPARE, "dead"))

    make().sweep()

    assert tasks.sent == [(PREPARE_QUEUE, Hint("job_1", PREPARE))]
    assert ledger.claim("job_1", PREPARE, "w-1").attempt == 2


def test_a_lost_hint_is_sent_again(
    make: Make, store: RedisStore, ledger: Ledger, tasks: RecordingQueue
) -> None:
    submit(store)
    (hint,) = ledger.dispatch(PREPARE_QUEUE, 1, hint_s=20)
    lapse_hint(store, PREPARE_QUEUE, hint)

    make().sweep()

    assert tasks.sent == [(PREPARE_QUEUE, hint)]


def test_an_old_job_loses_its_bytes_then_says_so_then_is_forgotten(
    make: Make, store: RedisStore, jobs: JobStore, blobs: BlobStore
) -> None:
    end(store, blobs)
    sweeper = make()

    sweeper.sweep()
    assert jobs.get("job_1").status is Status.EXPIRED
    assert blobs.folders("jobs") == ()

    sweeper.sweep()
    assert jobs.get("job_1").status is Status.EXPIRED
    left_s = store.client.zscore(store.key("expiry"), "job_1") / 1000 - time.time()
    assert left_s == pytest.approx(7 * DAY_S, abs=60)

    fall_due(store, "job_1")
    sweeper.sweep()
    with pytest.raises(NotFound):
        jobs.get("job_1")
    assert not store.client.keys("*job_1*")


def test_one_look_puts_a_whole_fleet_s_steps_back(make: Make, store: RedisStore, ledger: Ledger) -> None:
    """A thousand workers may die at once, with all they held: the next one takes over, not the tenth."""
    lost = MOST_SWEPT + 10
    for number in range(lost):
        submit(store, f"job_{number}")
        lapse_lease(store, ledger.claim(f"job_{number}", PREPARE, "dead"))

    make().put_back()

    assert store.client.zcard(store.key("waiting", PREPARE_QUEUE, "default")) == lost


def test_one_look_expires_whatever_is_due(make: Make, store: RedisStore, blobs: BlobStore) -> None:
    """As long as it has time: more jobs may end in a second than a bounded look removes in one."""
    for number in range(5):
        end(store, blobs, f"job_{number}")

    make().expire(at_once=2)

    assert JobStore(store).due_for_expiry() == ()
    assert blobs.folders("jobs") == ()


def test_one_worker_at_a_time_looks_for_orphans(make: Make, store: RedisStore, blobs: BlobStore) -> None:
    """It may take so long that another has the lock by then; that one is not to begin as well."""
    make("w-1").see_to_orphans()
    blobs.write(job_files.media("job_orphan"), b"sound")
    make_old(folder(blobs, "job_orphan"))

    make("w-2").see_to_orphans()
    assert blobs.folders("jobs") == ("job_orphan",)

    store.client.delete(store.key("orphans"))
    make("w-2").see_to_orphans()
    assert blobs.folders("jobs") == ()


def test_an_ended_job_stays_until_its_time(
    make: Make, store: RedisStore, jobs: JobStore, ledger: Ledger, blobs: BlobStore
) -> None:
    submit(store)
    blobs.write(job_files.media("job_1"), b"sound")
    ledger.cancel("job_1", webhook=None, retention_s=60)

    make().sweep()

    assert jobs.get("job_1").status is Status.CANCELED
    assert blobs.exists(job_files.media("job_1"))


def test_a_recording_may_go_before_its_result(
    make: Make, store: RedisStore, jobs: JobStore, ledger: Ledger, blobs: BlobStore
) -> None:
    submit(store)
    blobs.write(job_files.media("job_1"), b"sound")
    blobs.write(job_files.transcript("job_1"), b"{}")
    claim = ledger.claim("job_1", PREPARE, "w")
    ledger.end(claim, Status.COMPLETED, {}, webhook=None, retention_s=DAY_S, media_retention_s=0)

    make().sweep()

    assert jobs.get("job_1").status is Status.COMPLETED
    assert not blobs.exists(job_files.media("job_1"))
    assert blobs.exists(job_files.transcript("job_1"))
    assert jobs.due_for_expiry() == ()


def test_a_job_past_its_deadline_fails_whatever_it_is_at(
    make: Make, store: RedisStore, jobs: JobStore, ledger: Ledger
) -> None:
    for job_id in ("job_waits", "job_runs", "job_in_time", "job_ended"):
        submit(store, job_id, deadline_s=3600, webhook_url="https://example.org/hook")
    claim = ledger.claim("job_runs", PREPARE, "w")
    assert ledger.cancel("job_ended", webhook=None, retention_s=60)
    for job_id in ("job_waits", "job_runs", "job_ended"):
        store.client.zadd(store.key("deadlines"), {job_id: 1}, xx=True)

    make().sweep()

    codes = {
        job_id: failure.code
        for job_id in ("job_waits", "job_runs")
        if (failure := jobs.get(job_id).failure) is not None
    }
    assert codes == dict.fromkeys(("job_waits", "job_runs"), "deadline_exceeded")
    assert jobs.get("job_in_time").status is Status.QUEUED
    assert jobs.get("job_ended").status is Status.CANCELED
    assert b"deadline_exceeded" in ledger.claim("job_waits", "deliver-0", "w").body.encode()
    with pytest.raises(Fenced, match="ended"):
        ledger.beat(claim)


def test_an_outcome_that_nobody_saved_is_saved(
    make: Make, store: RedisStore, blobs: BlobStore, ledger: Ledger
) -> None:
    submit(store)
    job_files.write_manifest(blobs, NewJob("job_1", "default", Options("m"), media()))
    ledger.cancel("job_1", webhook=None, retention_s=DAY_S)

    make().sweep()

    assert blobs.exists(job_files.outcome("job_1"))
    assert not store.client.exists(store.key("unsaved"))


def test_many_old_jobs_go_in_a_few_looks(
    make: Make, store: RedisStore, jobs: JobStore, blobs: BlobStore
) -> None:
    for number in range(120):
        end(store, blobs, f"job_{number}")
    sweeper = make()

    for _ in range(2):
        sweeper.sweep()

    assert jobs.due_for_expiry() == ()


def test_old_bytes_that_nobody_knows_go(make: Make, blobs: BlobStore) -> None:
    blobs.write(job_files.media("job_1"), b"sound")
    make_old(folder(blobs, "job_1"))

    make().sweep()

    assert blobs.folders("jobs") == ()


def test_young_bytes_may_still_become_a_job(make: Make, blobs: BlobStore) -> None:
    blobs.write(job_files.media("job_1"), b"sound")

    make().sweep()

    assert blobs.folders("jobs") == ("job_1",)


def test_bytes_of_a_known_job_stay_however_old(make: Make, store: RedisStore, blobs: BlobStore) -> None:
    submit(store)
    blobs.write(job_files.media("job_1"), b"sound")
    make_old(folder(blobs, "job_1"))

    make().sweep()

    assert blobs.exists(job_files.media("job_1"))


def test_bytes_that_vanish_under_its_eyes_do_no_harm(make: Make, blobs: BlobStore) -> None:
    """A job that is deleted at this moment: its folder is listed, and gone when it is looked at."""
    (blobs.incoming.parent / "jobs").mkdir()
    folder(blobs, "job_1").symlink_to(blobs.incoming.parent / "gone")
    blobs.write(job_files.media("job_2"), b"sound")
    make_old(folder(blobs, "job_2"))

    make().sweep()

    assert "job_2" not in blobs.folders("jobs")


@pytest.mark.service
def test_bytes_in_an_object_store_are_looked_at_too(make: Make, objects: ObjectStore) -> None:
    blobs = open_blobs(Settings(**objects.settings()))
    blobs.write(job_files.media("job_1"), b"sound")
    upload = blobs.draft(job_files.media("job_2"))
    upload.__enter__().write(bytes(6 * 2**20))

    make(blobs=blobs).sweep()

    assert blobs.exists(job_files.media("job_1"))
    assert blobs.remove_drafts(-60, datetime.now(UTC)) == 1


def test_uploads_that_were_given_up_go_and_running_ones_stay(make: Make, blobs: BlobStore) -> None:
    for name in ("old", "new"):
        (blobs.incoming / name).write_bytes(b"half of it")
    make_old(blobs.incoming / "old")

    make().sweep()

    assert [path.name for path in blobs.incoming.iterdir()] == ["new"]


def test_a_folder_among_the_uploads_does_no_harm(make: Make, blobs: BlobStore) -> None:
    """Such as the `lost+found` of a disk of its own."""
    (blobs.incoming / "lost+found").mkdir()
    make_old(blobs.incoming / "lost+found")
    (blobs.incoming / "old").write_bytes(b"half of it")
    make_old(blobs.incoming / "old")

    make().sweep()

    assert [path.name for path in blobs.incoming.iterdir()] == ["lost+found"]


def looks(store: RedisStore) -> int:
    """How often anybody reached for the lock."""
    stats = store.client.info("commandstats")
    return int(stats.get("cmdstat_set", {}).get("calls", 0))


def test_who_does_not_hold_the_lock_does_nothing(
    make: Make, store: RedisStore, ledger: Ledger, tasks: RecordingQueue
) -> None:
    submit(store)
    lapse_lease(store, ledger.claim("job_1", PREPARE, "dead"))
    store.client.set(store.key("sweeper"), "another")
    before = looks(store)
    make(is_started=True)
    wait_until(lambda: looks(store) > before + 2)
    assert tasks.sent == []

    store.client.delete(store.key("sweeper"))

    wait_until(lambda: tasks.sent)


def test_of_two_sweepers_one_sweeps_until_it_ends(
    make: Make, store: RedisStore, ledger: Ledger, tasks: RecordingQueue
) -> None:
    lock = store.key("sweeper")
    first = make("w-1", is_started=True)
    wait_until(lambda: store.client.get(lock) == "w-1")
    make("w-2", is_started=True)
    before = looks(store)
    wait_until(lambda: looks(store) > before + 4)
    assert store.client.get(lock) == "w-1"

    first.close()
    submit(store)
    lapse_lease(store, ledger.claim("job_1", PREPARE, "dead"))

    wait_until(lambda: store.client.get(lock) == "w-2" and tasks.sent)


def test_keys_that_redis_lost_are_there_again(make: Make, store: RedisStore, blobs: BlobStore) -> None:
    ring = KeyRing(store, blobs)
    key, text = make_key(ring)
    store.client.flushdb()

    make().sweep()

    admission = ring.admit(read(text), 0)
    assert (admission.key, admission.are_there_keys) == (key, True)


def test_what_is_counted_for_keys_is_put_right_now_and_then(make: Make, store: RedisStore) -> None:
    """A version that knows no keys has deleted the job."""
    JobStore(store).create(NewJob("job_1", "ama", Options(model="m"), media(), audio_s=5.0, key_id="k"))
    store.client.delete(store.key("job", "job_1"))
    assert Usage(store).of("k").jobs == 1

    make().recount()

    assert Usage(store).of("k") == Used()
    store.client.hincrby(store.key("usage", "k"), "open", 7)
    make().recount()
    assert Usage(store).of("k") != Used(), "it was only just looked at"
