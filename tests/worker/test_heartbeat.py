"""What a worker says about itself, and that it says so at once."""

import os
from collections.abc import Iterator

import pytest

from shared.redis_store import RedisStore
from shared.settings import Settings
from tests.support.jobs import submit
from tests.support.worker_context import MODEL, submit_part, worker_context
from worker.context import Context
from worker.heartbeat import Heartbeat, state
from worker.steps import perform

pytestmark = pytest.mark.redis


@pytest.fixture
def context(settings: Settings, store: RedisStore) -> Iterator[Context]:
    slots = {"prepare_slots": 3, "part_slots": 5, "deliver_slots": 2}
    with worker_context(Settings(**(settings.model_dump(exclude_unset=True) | slots)), store) as context:
        yield context


def test_a_worker_says_what_it_serves_and_how_much_it_holds(context: Context) -> None:
    told = state(context)

    assert told.name == "worker-1"
    assert told.slots == {
        "prepare": 3,
        "prepare-long": 3,
        f"transcribe.{MODEL}": 5,
        f"transcribe-long.{MODEL}": 5,
        "deliver": 2,
        "fetch": 4,
    }
    assert told.models == (context.card(MODEL),)
    assert told.device == "cpu"
    assert told.engine[MODEL]["is_loaded"] == 1.0
    assert (told.pid, told.busy, told.draining) == (os.getpid(), 0, False)
    assert told.peak_rss_bytes > 2**20
    assert told.rtfx == {}


def test_a_worker_says_what_it_is_doing(context: Context, store: RedisStore) -> None:
    submit(store)
    with context.leases.hold(context.ledger.claim("job_1", "prepare", context.name)):
        assert state(context).busy == 1

    context.leases.draining.set()

    assert (state(context).busy, state(context).draining) == (0, True)


def test_a_worker_counts_what_it_did(context: Context, store: RedisStore) -> None:
    perform("job_1", submit_part(context, store, [2.0, 1.0]), context)

    told = state(context)

    assert (told.engine[MODEL]["windows"], told.engine[MODEL]["audio_s"]) == (2, 3.0)
    assert told.rtfx[MODEL] > 0


def test_the_first_beat_comes_at_once_and_draws_the_waiting_work(context: Context, store: RedisStore) -> None:
    submit(store)
    heartbeat = Heartbeat(context)

    heartbeat.start()

    assert [worker.name for worker in context.fleet.live()] == [context.name]
    assert store.client.zcard(store.key("busy", "prepare")) == 1
    heartbeat.close()
    assert context.fleet.live() == ()


def test_a_worker_that_is_not_asked_to_look_for_work_does_not(context: Context, store: RedisStore) -> None:
    heartbeat = Heartbeat(context)
    heartbeat.start()
    submit(store)
    store.client.set(store.key("looked"), "another", px=60_000)

    heartbeat.beat()
    assert store.client.zcard(store.key("busy", "prepare")) == 0

    store.client.delete(store.key("looked"))
    heartbeat.beat()
    assert store.client.zcard(store.key("busy", "prepare")) == 1
    heartbeat.close()


def test_a_worker_drains_when_it_is_told_to_and_says_so_at_once(context: Context) -> None:
    heartbeat = Heartbeat(context)
    context.fleet.drain([context.name])

    heartbeat.beat()

    assert context.fleet.live()[0].draining
    assert context.leases.is_draining
    assert not context.leases.draining.is_set()

    context.fleet.undrain([context.name])
    heartbeat.beat()

    assert not context.fleet.live()[0].draining
    assert not context.leases.is_draining


def test_a_worker_is_not_drained_for_the_one_before_it_of_its_name(context: Context) -> None:
    context.fleet.drain([context.name])
    heartbeat = Heartbeat(context)

    heartbeat.start()

    assert not context.leases.is_draining
    assert not context.fleet.beat(state(context)).drains
    heartbeat.close()


def test_a_worker_s_own_state_survives_the_fleet(context: Context) -> None:
    told = state(context)

    context.fleet.beat(told)

    assert context.fleet.live() == (told,)


@pytest.mark.redis
def url_of(store: RedisStore) -> str:
    return f"unix://{store.client.connection_pool.connection_kwargs['path']}?db=0"
