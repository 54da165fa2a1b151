"""The edge of a step: what goes wrong inside becomes a state of the job, and never an exception."""

import threading
from collections.abc import Iterator, Sequence

import pytest

from shared import job_files
from shared.errors import BlobUnavailable
from shared.fleet import WorkerState
from shared.job import Job, Status
from shared.ledger import PREPARE, PREPARE_QUEUE, ClaimOutcome, Hint
from shared.models import queue_of
from shared.redis_store import RedisStore
from shared.settings import Settings
from tests.fakes import ScriptedRunner
from tests.support.jobs import lapse_lease, submit
from tests.support.waiting import wait_until
from tests.support.worker_context import MODEL, submit_part, worker_context
from worker.context import Context
from worker.engine.values import Window
from worker.leases import Crowded
from worker.steps import perform

pytestmark = pytest.mark.redis


@pytest.fixture
def context(settings: Settings, store: RedisStore) -> Iterator[Context]:
    with worker_context(settings, store) as context:
        yield context


def failure_code(job: Job) -> str:
    assert job.status is Status.FAILED, job
    assert job.failure is not None
    return job.failure.code


def claims(store: RedisStore, step: str) -> int:
    return int(store.client.hget(store.key("step", "job_1", step), "claims"))


def due_in_s(store: RedisStore, queue: str, step: str) -> float:
    seconds, microseconds = store.client.time()
    score = store.client.zscore(store.key("later", queue), f"job_1/{step}")
    return float(score) / 1000 - (seconds + microseconds / 1_000_000)


def test_a_step_that_went_well_is_done(context: Context, store: RedisStore) -> None:
    step = submit_part(context, store, [1.0, 1.0])

    perform("job_1", step, context)
    perform("job_1", "finish", context)

    job = context.jobs.get("job_1")
    assert (job.status, job.done_s) == (Status.COMPLETED, 2.0)
    assert b"window 0 window 1" in context.blobs.read(job_files.transcript("job_1"))
    assert context.leases.count == 0


def test_what_cannot_be_done_fails_the_job_with_its_code(context: Context, store: RedisStore) -> None:
    submit(store, model=MODEL, language="tw")

    perform("job_1", PREPARE, context)

    job = context.jobs.get("job_1")
    assert failure_code(job) == "unsupported_option"
    assert job.failure is not None
    assert "'tw'" in job.failure.detail


def test_a_failed_job_tells_its_webhook(context: Context, store: RedisStore) -> None:
    submit(store, model=MODEL, language="tw", webhook_url="https://example.org/hook")

    perform("job_1", PREPARE, context)

    assert '"type":"job.failed"' in context.ledger.claim("job_1", "deliver-0", "w").body


def test_a_recording_that_is_gone_has_its_code(context: Context, store: RedisStore) -> None:
    submit(store, model=MODEL)

    perform("job_1", PREPARE, context)

    assert failure_code(context.jobs.get("job_1")) == "media_missing"


def test_a_model_that_fails_is_tried_again_and_then_believed(settings: Settings, store: RedisStore) -> None:
    def broken(batch: Sequence[Window]) -> None:
        raise RuntimeError("no kernel image")

    with worker_context(settings, store, ScriptedRunner(broken)) as context:
        step = submit_part(context, store, [1.0])

        perform("job_1", step, context)
        assert context.jobs.get("job_1").status is Status.RUNNING
        assert due_in_s(store, queue_of(MODEL), step) > 1

        perform("job_1", step, context)
        assert failure_code(context.jobs.get("job_1")) == "model_error"


def test_a_mistake_of_ours_is_internal_after_three_beginnings(context: Context, store: RedisStore) -> None:
    submit(store, model=MODEL)
    prepare = context.ledger.claim("job_1", PREPARE, "w")
    context.blobs.write(job_files.part_audio("job_1", "part-0"), b"")
    context.ledger.offer_part(prepare, 0, MODEL, "{}", 1.0)

    for _ in range(2):
        perform("job_1", "part-0", context)
        assert context.jobs.get("job_1").status is Status.RUNNING
    perform("job_1", "part-0", context)

    assert failure_code(context.jobs.get("job_1")) == "internal"


def test_a_model_that_is_not_here_puts_the_step_off_at_no_charge(context: Context, store: RedisStore) -> None:
    submit(store, model="elsewhere")

    perform("job_1", PREPARE, context)

    assert context.jobs.get("job_1").status is Status.RUNNING
    assert claims(store, PREPARE) == 0
    assert due_in_s(store, "prepare", PREPARE) > 3


def test_a_dependency_that_names_its_time_is_given_it(settings: Settings, store: RedisStore) -> None:
    """The file store does not answer: a folder lies where a blob should be."""
    with worker_context(settings, store) as context:
        step = submit_part(context, store, [1.0])
        context.blobs.remove(job_files.part_audio("job_1", step))
        context.blobs.write(job_files.part_audio("job_1", step) + "/in-the-way", b"")
        with pytest.raises(BlobUnavailable) as raised:
            context.blobs.read(job_files.part_audio("job_1", step))

        perform("job_1", step, context)

        asked_s = raised.value.retry_after_s or 0.0
        assert due_in_s(store, queue_of(MODEL), step) == pytest.approx(asked_s, abs=2)


def test_a_draining_worker_claims_nothing(context: Context, store: RedisStore) -> None:
    submit(store, model=MODEL)
    context.leases.draining.set()

    perform("job_1", PREPARE, context)

    assert context.jobs.get("job_1").status is Status.QUEUED


@pytest.mark.parametrize("word", ["draining", "drained"])
def test_a_hint_that_comes_too_late_goes_to_another_at_once(
    context: Context, store: RedisStore, word: str
) -> None:
    submit(store, model=MODEL)
    context.fleet.beat(WorkerState("another", (), {PREPARE_QUEUE: 1}))
    assert context.dispatcher.dispatch() == 1
    getattr(context.leases, word).set()

    perform("job_1", PREPARE, context)

    assert context.jobs.get("job_1").status is Status.QUEUED
    sent = context.dispatcher._tasks.sent  # type: ignore[attr-defined]
    assert sent == [(PREPARE_QUEUE, Hint("job_1", PREPARE))] * 2


def test_a_worker_that_drains_hands_its_part_back_and_the_next_does_no_window_again(
    settings: Settings, store: RedisStore
) -> None:
    def drain_after_the_first(batch: Sequence[Window]) -> None:
        if batch[0].index == 1:
            wait_until(lambda: context.jobs.windows("job_1"))
            context.leases.draining.set()
            wait_until(lambda: claims(store, step) == 0)

    one_by_one = Settings(**(settings.model_dump(exclude_unset=True) | {"batch_size": 1}))
    with worker_context(one_by_one, store, ScriptedRunner(drain_after_the_first)) as context:
        step = submit_part(context, store, [1.0] * 4)
        perform("job_1", step, context)
        assert [result.index for result in context.jobs.windows("job_1")] == [0]
        assert [hint.step for hint in context.ledger.dispatch(queue_of(MODEL), 9, hint_s=20)] == [step]

    runner = ScriptedRunner()
    with worker_context(settings, store, runner, "worker-2") as context:
        perform("job_1", step, context)
        perform("job_1", "finish", context)

        assert sorted(window.index for batch in runner.batches for window in batch) == [1, 2, 3]
        assert (context.jobs.get("job_1").done_s, context.jobs.get("job_1").attempt) == (4.0, 1)


def test_a_step_that_kills_its_workers_is_given_up(settings: Settings, store: RedisStore) -> None:
    few = Settings(**(settings.model_dump(exclude_unset=True) | {"max_claims": 2}))
    with worker_context(few, store) as context:
        submit(store, model=MODEL)
        for _ in range(2):
            lapse_lease(store, context.ledger.claim("job_1", PREPARE, "dead", few.max_claims))

        perform("job_1", PREPARE, context)

        assert failure_code(context.jobs.get("job_1")) == "worker_crashed"


def test_a_step_that_may_kill_its_worker_is_not_begun_before_the_worker_does_nothing_else(
    context: Context, store: RedisStore
) -> None:
    """While it waits, a neighbour's death is not held against it."""
    step = submit_part(context, store, [1.0])
    for _ in range(2):
        lapse_lease(store, context.ledger.claim("job_1", step, "dead"))
    submit(store, "job_2")
    neighbour = context.ledger.claim("job_2", PREPARE, context.name)
    thread = threading.Thread(target=perform, args=("job_1", step, context))

    with context.leases.hold(neighbour) as held:
        thread.start()
        wait_until(lambda: context.leases.is_reserved)
        with pytest.raises(Crowded):
            held.check()
        assert claims(store, step) == 2
    thread.join(timeout=60)

    assert context.jobs.get("job_1").done_s == 1.0
    assert not context.leases.is_reserved


def test_a_step_that_another_holds_is_left_alone(context: Context, store: RedisStore) -> None:
    submit(store, model=MODEL, language="tw")
    claim = context.ledger.claim("job_1", PREPARE, "other")

    perform("job_1", PREPARE, context)

    context.ledger.beat(claim)


def test_a_deleted_job_is_nobody_s_business(context: Context) -> None:
    perform("job_1", PREPARE, context)

    assert context.ledger.claim("job_1", PREPARE, "w").outcome is ClaimOutcome.GONE


@pytest.mark.parametrize("ending", ["cancel", "delete"])
def test_a_job_that_ends_under_the_worker_s_hands_stays_as_it_ended(
    settings: Settings, store: RedisStore, ending: str
) -> None:
    def end(batch: Sequence[Window]) -> None:
        if ending == "delete":
            context.jobs.delete("job_1")
        else:
            context.ledger.cancel("job_1", webhook=None, retention_s=60)

    with worker_context(settings, store, ScriptedRunner(end)) as context:
        step = submit_part(context, store, [1.0, 1.0])

        perform("job_1", step, context)

        if ending == "delete":
            assert not store.client.keys("*job_1*")
        else:
            assert context.jobs.get("job_1").status is Status.CANCELED
        assert not context.blobs.exists(job_files.part_result("job_1", step))
        assert context.leases.count == 0
