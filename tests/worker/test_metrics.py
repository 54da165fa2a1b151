"""What a worker counts of its steps, whatever becomes of them, and what it reads where others keep it."""

import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from shared.fleet import Fleet
from shared.job import Status
from shared.job_store import JobStore
from shared.ledger import PREPARE, Ledger
from shared.redis_store import RedisStore, connect
from shared.settings import Settings, SettingsError
from tests.fakes import Script, ScriptedRunner
from tests.support.jobs import submit
from tests.support.metrics import value
from tests.support.waiting import wait_until
from tests.support.worker_context import MODEL, submit_part, worker_context
from worker import steps
from worker.context import Context
from worker.engine.values import Window
from worker.heartbeat import Heartbeat
from worker.metrics import Metrics, Timed
from worker.readings import Readings

pytestmark = pytest.mark.redis

STEPS = "ananse_worker_steps_total"


@pytest.fixture
def context(settings: Settings, store: RedisStore) -> Iterator[Context]:
    with worker_context(settings, store) as context:
        context.metrics.add(Readings(context))
        yield context


def page(context: Context) -> str:
    return context.metrics.text().decode()


def test_a_part_is_counted_from_its_claim_to_its_end(context: Context, store: RedisStore) -> None:
    step = submit_part(context, store, [2.0, 3.0])
    steps.perform("job_1", step, context)

    told = page(context)
    assert value(told, STEPS, kind="part", outcome="claimed") == 1
    assert value(told, STEPS, kind="part", outcome="done") == 1
    assert value(told, "ananse_worker_wait_seconds_count", kind="part") == 1
    assert value(told, "ananse_worker_stage_seconds_count", stage="transcribe") == 1
    assert value(told, "ananse_engine_windows_total", model=MODEL) == 2
    assert value(told, "ananse_engine_rows_total", model=MODEL) == 2
    assert value(told, "ananse_engine_audio_seconds_total", model=MODEL) == 5
    assert value(told, "ananse_worker_slots", queue="prepare") == 2
    assert value(told, "ananse_worker_steps_held") == 0


def test_a_step_that_somebody_else_holds_is_not_claimed(context: Context, store: RedisStore) -> None:
    submit(store, model=MODEL)
    context.ledger.claim("job_1", PREPARE, "other")

    steps.perform("job_1", PREPARE, context)

    assert value(page(context), STEPS, kind="prepare", outcome="not_claimed", reason="taken") == 1
    assert value(page(context), STEPS, outcome="claimed") == 0


def run(settings: Settings, store: RedisStore, script: Script, times: int = 1) -> str:
    """What a worker tells whose model does this with a part of two windows."""
    with worker_context(settings, store, ScriptedRunner(script)) as context:
        context.metrics.add(Readings(context))
        step = submit_part(context, store, [1.0, 1.0])
        for _ in range(times):
            steps.perform("job_1", step, context)
        return page(context)


def test_a_failure_is_counted_by_its_code(settings: Settings, store: RedisStore) -> None:
    def broken(batch: Sequence[Window]) -> None:
        raise RuntimeError("no kernel image")

    told = run(settings, store, broken, times=2)

    reason = {"kind": "part", "reason": "model_error"}
    assert value(told, STEPS, outcome="tried_again", **reason) == 1
    assert value(told, STEPS, outcome="failed", **reason) == 1
    assert value(told, "ananse_engine_windows_failed_total") >= 2
    assert value(told, "ananse_worker_stage_seconds_count") == 0


def test_what_this_worker_cannot_do_is_put_off(context: Context, store: RedisStore) -> None:
    submit(store, model="elsewhere")

    steps.perform("job_1", PREPARE, context)

    assert value(page(context), STEPS, kind="prepare", outcome="put_off", reason="no_worker") == 1


def test_a_part_handed_back_says_why(settings: Settings, store: RedisStore) -> None:
    def drain(batch: Sequence[Window]) -> None:
        context.leases.draining.set()
        wait_until(lambda: store.client.hget(store.key("step", "job_1", "part-0"), "state") == "waiting")

    with worker_context(settings, store, ScriptedRunner(drain)) as context:
        step = submit_part(context, store, [1.0])
        steps.perform("job_1", step, context)
        told = page(context)

    assert value(told, STEPS, kind="part", outcome="handed_back", reason="draining") == 1


def test_a_part_whose_job_was_canceled_is_fenced(settings: Settings, store: RedisStore) -> None:
    with worker_context(settings, store, ScriptedRunner(lambda batch: cancel(context))) as context:
        step = submit_part(context, store, [1.0])
        steps.perform("job_1", step, context)
        told = page(context)

    assert value(told, STEPS, kind="part", outcome="fenced", reason="ended") == 1


def test_memory_that_was_not_enough_is_counted(settings: Settings, store: RedisStore) -> None:
    def too_much(batch: Sequence[Window]) -> None:
        if len(batch) > 1:
            raise MemoryError

    told = run(settings, store, too_much)

    assert value(told, "ananse_engine_out_of_memory_total", model=MODEL) == 1
    assert value(told, "ananse_engine_batch_limit", model=MODEL) == 1
    assert value(told, STEPS, kind="part", outcome="done") == 1


def cancel(context: Context) -> None:
    context.ledger.cancel("job_1", webhook=None, retention_s=60)


def test_a_completed_job_is_measured_on_the_clock_of_its_record(
    settings: Settings, store: RedisStore
) -> None:
    metrics = Metrics()
    submit(store)
    jobs = JobStore(store)
    Ledger(store).claim("job_1", PREPARE, "w")
    job = jobs.get("job_1")
    job = replace(job, media=replace(job.media, duration_s=20.0))

    metrics.job_ended(job, Status.COMPLETED, job.created_at + timedelta(seconds=2))
    metrics.job_ended(job, Status.FAILED, job.created_at + timedelta(seconds=1))

    told = metrics.text().decode()
    assert value(told, "ananse_worker_job_seconds_sum", status="completed") == 2
    assert value(told, "ananse_worker_job_seconds_sum", status="failed") == 1
    assert value(told, "ananse_worker_job_rtf_count") == 1
    assert value(told, "ananse_worker_job_rtf_sum") == pytest.approx(0.1, abs=0.05)


def test_a_heartbeat_nobody_hears_is_counted(settings: Settings, context: Context) -> None:
    with connect("unix:///nowhere/redis.sock") as client:
        deaf = replace(context, fleet=Fleet(RedisStore(client)))
        heartbeat = Heartbeat(deaf)
        heartbeat.start()
        told = page(context)
        heartbeat.close()

    assert value(told, "ananse_worker_heartbeat_errors_total") == 1


def test_time_spent_on_values_is_that_of_getting_them() -> None:
    def slow() -> Iterator[int]:
        for number in range(2):
            time.sleep(0.01)
            yield number

    timed = Timed(slow())
    assert list(timed) == [0, 1]

    assert 0.02 <= timed.seconds < 0.5


def test_a_port_that_is_taken_is_one_sentence(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"ANANSE_METRICS_PORT: port {port} of 127.0.0.1"):
            Metrics().serve(settings.model_copy(update={"metrics_port": port}))


def test_without_a_port_there_is_no_page(settings: Settings) -> None:
    assert Metrics().serve(settings) is None
