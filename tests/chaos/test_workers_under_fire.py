"""Workers killed, frozen, poisoned and stopped in turn: rows of the failure table."""

import os
import random
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from shared.errors import NotFound
from shared.job import Job, Status
from shared.ledger import PREPARE, PREPARE_QUEUE, Hint, part_step
from shared.models import queue_of
from shared.redis_store import RedisStore
from shared.settings import Settings
from shared.task_queue import CeleryQueue, make_celery
from tests.chaos.crew import (
    SWEEP_S,
    Crew,
    assert_all_right,
    assert_one_body_each,
    body_of,
    crew,
    fall_due,
    has_ended,
    impatient,
    webhook_id,
)
from tests.chaos.decoders import decoders, killing_decoders
from tests.chaos.sounds import Sound, sound, sounds
from tests.chaos.watch import Memory, Progress, watching
from tests.support.service import MODEL, Service
from tests.support.waiting import wait_until
from tests.support.worker_process import WorkerProcess
from tests.worker.receiver import http, receiver

pytestmark = [pytest.mark.redis, pytest.mark.service, pytest.mark.slow]

SEED = 2026
HOURS = float(os.environ.get("CHAOS_HOURS", "1"))
"""Length of the long file; six for the full size."""

MOST_CLAIMS = 4
MOST_BYTES = 300 * 2**20
CANCEL_S = 10.0
TAKEOVER_S = 10.0
"""A lease and a look of the sweeper until a dead worker's steps are given out again, however many stand
before them; generous, for this is no measurement."""


@pytest.fixture
def service(settings: Settings, store: RedisStore) -> Service:
    return Service(impatient(settings), store)


def test_jobs_of_killed_workers_are_ended_by_others(service: Service, tmp_path: Path) -> None:
    """Row 8: kill -9, five times, of a worker that is in the middle of a part."""
    chance = random.Random(SEED)
    recordings = sounds(tmp_path, [chance.uniform(2, 14) for _ in range(100)], SEED)
    orphans: list[str] = []
    with receiver() as hook, crew(service, tmp_path, pace=0.15) as workers:
        workers.hire(2)
        given = {workers.submit(one, webhook_url=hook.url()): one for one in recordings}
        for _ in range(5):
            victim = chance.choice(workers.workers)
            workers.caught(victim, "part")
            workers.dismiss(victim)
            orphans += leased_to(service, victim)
            wait_until(lambda dead=victim: not leased_to(service, dead), TAKEOVER_S)
            workers.hire()
        jobs = workers.see_through(given)
        assert_all_right(service, given, jobs)
        assert_one_body_each(hook, given)
        assert orphans


def leased_to(service: Service, worker: WorkerProcess) -> list[str]:
    """Keys of the steps under the name of this worker; others may have them once its leases lapse."""
    client = service.store.client
    name = f"{socket.gethostname()}-{worker.pid}"
    keys = client.scan_iter(service.store.key("step", "*", "*"), count=1000)
    return [key for key in keys if client.hmget(key, "state", "worker") == ["leased", name]]


def test_a_frozen_worker_writes_nothing_when_it_wakes(
    settings: Settings, store: RedisStore, tmp_path: Path
) -> None:
    """Row 10: ten times SIGSTOP in the middle of a part, for more than two leases: it has gone to another."""
    lease_s = 1.0
    service = Service(impatient(settings, lease_s=lease_s), store)
    chance = random.Random(SEED)
    given: dict[str, Sound] = {}
    with receiver() as hook, crew(service, tmp_path, pace=0.03) as workers:
        workers.hire(4, ANANSE_PART_SLOTS="2")
        for turn in range(5):
            recordings = sounds(tmp_path, [65] * 4, SEED + turn)
            new = {workers.submit(one, webhook_url=hook.url()): one for one in recordings}
            given |= new
            victims = chance.sample(workers.workers, 2)
            fenced = [len(workers.log("step_fenced", one)) for one in victims]
            held = set().union(*(workers.caught(one, "part") for one in victims))
            frozen_at = time.monotonic()
            wait_until(lambda held=held: held <= claimed_again(workers), 30)
            wait_until(lambda frozen_at=frozen_at: time.monotonic() - frozen_at > 2 * lease_s)
            for victim, before in zip(victims, fenced, strict=True):
                victim.signal(signal.SIGCONT)
                wait_until(lambda one=victim, n=before: len(workers.log("step_fenced", one)) > n, 30)
            workers.see_through(new)
        jobs = workers.see_through(given)
        assert_all_right(service, given, jobs)
        assert_one_body_each(hook, given)
        assert but_for_webhooks(workers.see_through(given)) == but_for_webhooks(jobs)


def but_for_webhooks(jobs: Mapping[str, Job]) -> dict[str, Job]:
    """A receiver's answer may come to be known after the job has ended."""
    return {job_id: replace(job, webhook_status=None) for job_id, job in jobs.items()}


def claimed_again(workers: Crew) -> set[tuple[str, str]]:
    return {(row["job_id"], row["step"]) for row in workers.log("step_claimed") if row["attempt"] > 1}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_killed_decoder_takes_nobody_with_it(
    service: Service, tmp_path: Path, number: signal.Signals
) -> None:
    """Row 11: a job whose decoder dies once, one whose decoder dies every time, and six beside them."""
    recordings = sounds(tmp_path, [120, 120, 4, 5, 6, 7, 8, 9], SEED)
    with crew(service, tmp_path) as workers:
        (worker,) = workers.hire()
        # Held still until the killer knows whom to look for.
        worker.signal(signal.SIGSTOP)
        given = {workers.submit(one): one for one in recordings}
        once, always, *others = given
        with killing_decoders(worker.pid, number, {once: 1, always: 99}) as killer:
            worker.signal(signal.SIGCONT)
            jobs = workers.see_through(given)
        assert not has_ended(worker)
    assert killer.killed == {once: 1, always: 3}
    assert jobs[always].status is Status.FAILED
    assert jobs[always].failure is not None
    assert jobs[always].failure.code == "decoder_crashed"
    assert_all_right(service, {one: given[one] for one in (once, *others)}, jobs)
    assert {jobs[one].attempt for one in others} == {1}


def test_poison_ends_and_the_others_get_through(
    settings: Settings, store: RedisStore, tmp_path: Path
) -> None:
    """Row 12: recordings that kill every worker they are given to, at most four times each."""
    service = Service(impatient(settings, max_claims=MOST_CLAIMS), store)
    chance = random.Random(SEED)
    recordings = sounds(tmp_path, [chance.uniform(2, 9) for _ in range(30)], SEED)
    poison = [sound(tmp_path / f"poison-{n}.wav", 3, SEED + n, is_poison=True) for n in range(2)]
    mixed = [*recordings, *poison]
    chance.shuffle(mixed)
    with crew(service, tmp_path, pace=0.02) as workers:
        workers.hire(2)
        given = {workers.submit(one): one for one in mixed}
        jobs = workers.see_through(given)
        begun = workers.windows()
    for job_id, one in given.items():
        if one in poison:
            assert jobs[job_id].status is Status.FAILED
            assert jobs[job_id].failure is not None
            assert jobs[job_id].failure.code == "worker_crashed"
            # The claim that finds it exhausted is one more, and a neighbour's death may cut one short.
            assert jobs[job_id].attempt == MOST_CLAIMS + 1
            assert 1 <= begun[one.text] <= MOST_CLAIMS
    assert_all_right(service, {key: one for key, one in given.items() if one not in poison}, jobs)


def test_a_sender_killed_after_its_post_leaves_the_same_letter_to_the_next(
    service: Service, tmp_path: Path
) -> None:
    """Row 23: the receiver has read the body, and before it answers the worker is gone."""
    with crew(service, tmp_path) as workers:

        def kill_the_sender(_: socket.socket) -> None:
            workers.workers[0].signal(signal.SIGKILL)

        with receiver(*[kill_the_sender] * 3, http(204)) as hook:
            workers.hire()
            (recording,) = sounds(tmp_path, [3], SEED)
            job_id = workers.submit(recording, webhook_url=hook.url())
            workers.see_through([job_id])
            for number in range(1, 4):
                wait_until(lambda number=number: len(hook.requests) == number, 30)
                wait_until(workers.replace_dead)
            wait_until(lambda: service.jobs.get(job_id).webhook_status == "delivered", 30)
    assert len({(webhook_id(request), body_of(request)) for request in hook.requests}) == 1
    assert [delivery.status for delivery in service.jobs.deliveries(job_id)] == [204]


@pytest.mark.timeout(300 + 600 * HOURS)
def test_a_long_file_takes_little_memory_and_is_hardly_begun_again(
    settings: Settings, store: RedisStore, tmp_path: Path
) -> None:
    """Row 24: its worker is killed in the middle; then the file is sent again, and canceled in the middle."""
    batch = 4
    service = Service(impatient(settings, part_s=600, batch_size=batch), store)
    long = sound(tmp_path / "long.flac", HOURS * 3600, SEED)
    with crew(service, tmp_path, pace=0.004) as workers:
        (first,) = workers.hire()
        job_id = workers.submit(long)
        memory, progress = Memory(first.pid), Progress(service.jobs, job_id)
        with watching(progress):
            with watching(memory):
                wait_until(lambda: progress.heard, 60)
                assert decoders(first.pid), "nothing was heard of the file until all of it was decoded"
                # In the middle of a part, too.
                wait_until(lambda: service.jobs.get(job_id).done_s > HOURS * 1200 + 300, 120 * HOURS)
            workers.dismiss(first)
            (second,) = workers.hire()
            later = Memory(second.pid)
            with watching(later):
                jobs = workers.see_through([job_id], 300 * HOURS)
        begun = workers.windows()
        # Not with the same options: it would be given the first one's transcript.
        canceled = workers.submit(long, language="en")
        wait_until(lambda: service.jobs.get(canceled).done_s > HOURS * 600, 120 * HOURS)
        assert service.ledger.cancel(canceled, webhook=None, retention_s=60)
        wait_until(lambda: not workers.held(second, "") and not decoders(second.pid), CANCEL_S)
        assert (workers.windows() - begun).total() < len(long.texts) / 2
    assert_all_right(service, {job_id: long}, jobs)
    assert max(memory.grown_bytes, later.grown_bytes) < MOST_BYTES
    assert progress.longest_silence_s < 30
    assert begun.total() - len(long.texts) <= 2 * batch


def test_workers_restarted_in_turn_lose_nothing_and_redo_little(service: Service, tmp_path: Path) -> None:
    """Row 26: SIGTERM to every worker, twice round, under load."""
    chance = random.Random(SEED)
    recordings = sounds(tmp_path, [chance.uniform(8, 14) for _ in range(100)], SEED)
    with crew(service, tmp_path, pace=0.02) as workers:
        workers.hire(2)
        given = {workers.submit(one): one for one in recordings}
        for _ in range(4):
            oldest = workers.workers[0]
            wait_until(lambda oldest=oldest: workers.held(oldest, "part"), 30)
            assert workers.retire(oldest) == 0
            workers.hire()
        still = [service.jobs.get(job_id).status for job_id in given]
        jobs = workers.see_through(given)
        begun = workers.windows()
    assert not all(status.is_terminal for status in still)
    assert_all_right(service, given, jobs)
    assert {job.attempt for job in jobs.values()} == {1}
    needed = sum(len(one.texts) for one in recordings)
    assert begun.keys() == {text for one in recordings for text in one.texts}
    assert begun.total() - needed <= 0.05 * needed


def test_a_hint_sent_over_and_over_starts_nothing_twice(service: Service, tmp_path: Path) -> None:
    """Row 29: ten more hints for a step that is being worked on, and for one that is done."""
    celery = make_celery(service.settings.redis_url)
    (recording,) = sounds(tmp_path, [60], SEED)
    with receiver() as hook, crew(service, tmp_path, pace=0.05) as workers:
        workers.hire(2)
        job_id = workers.submit(recording, webhook_url=hook.url())
        service.wait_for_windows(job_id, 1)
        for _ in range(10):
            CeleryQueue(celery).send(queue_of(MODEL), Hint(job_id, part_step(0)))
            CeleryQueue(celery).send(PREPARE_QUEUE, Hint(job_id, PREPARE))
        wait_until(lambda: len(workers.log("step_not_claimed")) >= 20, 30)
        jobs = workers.see_through([job_id])
        outcomes = Counter((row["step"], row["outcome"]) for row in workers.log("step_not_claimed"))
        assert_one_body_each(hook, [job_id])
    assert outcomes[part_step(0), "taken"] > 0
    assert outcomes[PREPARE, "done"] > 0
    assert_all_right(service, {job_id: recording}, jobs)
    assert jobs[job_id].attempt == 1
    assert workers.windows() == Counter(recording.texts)


def test_three_sweepers_at_once_do_everything_once(service: Service, tmp_path: Path) -> None:
    """Row 33: the lock is taken away as soon as it is there, so all three sweep."""
    chance = random.Random(SEED)
    (old,) = sounds(tmp_path, [0.1], SEED + 1)
    recordings = sounds(tmp_path, [chance.uniform(4, 9) for _ in range(30)], SEED)
    with receiver() as hook, crew(service, tmp_path, pace=0.02) as workers:
        past = [workers.submit(old) for _ in range(200)]
        assert all(service.ledger.cancel(job_id, webhook=None, retention_s=60) for job_id in past)
        workers.hire(3)
        with no_lock(service):
            given = {workers.submit(one, webhook_url=hook.url()): one for one in recordings}
            workers.caught(workers.workers[0], "part")
            workers.dismiss(workers.workers[0])
            workers.hire()
            fall_due(service, past)
            jobs = workers.see_through(given)
            wait_until(lambda: not service.jobs.due_for_expiry(), 30)
        assert_one_body_each(hook, given)
    assert_all_right(service, given, jobs)
    assert max(job.attempt for job in jobs.values()) <= 2
    assert known(service, past) == {Status.EXPIRED: len(past)}


def known(service: Service, job_ids: Iterable[str]) -> Counter[Status]:
    """How many there are of each state; forgotten jobs are left out."""
    found: Counter[Status] = Counter()
    for job_id in job_ids:
        with suppress(NotFound):
            found[service.jobs.get(job_id).status] += 1
    return found


@contextmanager
def no_lock(service: Service) -> Iterator[None]:
    stopped = threading.Event()

    def take_away() -> None:
        while not stopped.wait(SWEEP_S / 20):
            service.store.client.delete(service.store.key("sweeper"))

    thread = threading.Thread(target=take_away, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def test_a_dead_sweeper_is_followed_by_another(service: Service, tmp_path: Path) -> None:
    """Row 33: the worker that sweeps is killed at work; only a sweeper puts its part back."""
    (recording,) = sounds(tmp_path, [30], SEED)
    with crew(service, tmp_path, pace=0.1) as workers:
        (first,) = workers.hire()
        job_id = workers.submit(recording)
        wait_until(lambda: workers.held(first, "part"), 30)
        (second,) = workers.hire()
        assert sweeps(service, first)
        workers.dismiss(first)
        wait_until(lambda: sweeps(service, second), 5)
        jobs = workers.see_through([job_id])
    assert_all_right(service, {job_id: recording}, jobs)
    assert jobs[job_id].attempt == 2


def sweeps(service: Service, worker: WorkerProcess) -> bool:
    name = service.store.client.get(service.store.key("sweeper")) or ""
    return bool(name.endswith(f"-{worker.pid}"))


def test_parts_of_one_file_are_shared_out_and_the_text_is_that_of_one_worker(
    service: Service, tmp_path: Path
) -> None:
    """Ten parts, two free workers: neither stands by, and nothing shows who did what."""
    (recording,) = sounds(tmp_path, [300], SEED)
    with crew(service, tmp_path, pace=0.05) as workers:
        workers.hire(2)
        job_id = workers.submit(recording)
        jobs = workers.see_through([job_id])
        wait_until(lambda: sum(windows_run(service)) >= len(recording.texts), 10)
        shares = windows_run(service)
    assert_all_right(service, {job_id: recording}, jobs)
    assert sum(shares) == len(recording.texts)
    assert min(shares) >= len(recording.texts) // 5


def windows_run(service: Service) -> list[int]:
    """By each live worker, as it said last."""
    return [int(worker.engine[MODEL]["windows"]) for worker in service.fleet.live()]
