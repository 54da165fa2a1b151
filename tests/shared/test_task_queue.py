"""Hints on their way: named, addressed, no more than workers can hold, and never worth an error."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from shared.fleet import Fleet, WorkerState
from shared.ledger import MOST_HINTS, PREPARE, PREPARE_QUEUE, Hint, Ledger
from shared.models import queue_of
from shared.redis_store import RedisStore, connect
from shared.task_queue import CeleryQueue, Dispatcher, broker_url, make_celery, task_name
from tests.support.jobs import submit
from tests.support.recording_queue import RecordingQueue
from tests.support.redis_server import find_binary, redis_server

HINT = Hint("job_1", PREPARE)
SOON_S = 20.0


@contextmanager
def celery_queue(redis_url: str) -> Iterator[CeleryQueue]:
    with make_celery(redis_url) as celery:
        yield CeleryQueue(celery)


@pytest.mark.parametrize(
    ("step", "name"),
    [
        ("prepare", "ananse.prepare"),
        ("part-0", "ananse.part"),
        ("part-12", "ananse.part"),
        ("finish", "ananse.finish"),
        ("deliver-0", "ananse.deliver"),
    ],
)
def test_every_kind_of_step_has_its_task(step: str, name: str) -> None:
    assert task_name(step) == name


def test_an_unknown_step_has_none() -> None:
    with pytest.raises(ValueError, match="brew"):
        task_name("brew-1")


@pytest.mark.parametrize(
    ("redis_url", "expected"),
    [
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("redis://:secret@redis:6379/2", "redis://:secret@redis:6379/2"),
        ("rediss://redis:6380/0", "rediss://redis:6380/0"),
        ("unix:///run/redis.sock", "redis+socket:///run/redis.sock?virtual_host=0"),
        ("unix:///run/redis.sock?db=3", "redis+socket:///run/redis.sock?virtual_host=3"),
        ("unix:///run/redis.sock?timeout=5&db=1", "redis+socket:///run/redis.sock?virtual_host=1"),
    ],
)
def test_the_broker_is_where_redis_is(redis_url: str, expected: str) -> None:
    assert broker_url(redis_url) == expected


@pytest.mark.redis
def test_a_hint_is_a_message_with_two_ids(store: RedisStore, redis_url: str) -> None:
    with celery_queue(redis_url) as tasks:
        tasks.send(queue_of("org/m"), Hint("job_1", "part-3"))

    (message,) = store.client.lrange("ananse-celery:transcribe.org/m", 0, -1)
    headers = json.loads(message)["headers"]
    assert headers["task"] == "ananse.part"
    assert headers["argsrepr"] == "['job_1', 'part-3']"


@pytest.mark.parametrize("redis_url", ["redis://127.0.0.1:1/0", "unix:///nowhere/redis.sock?db=0"])
def test_a_broker_that_is_not_there_costs_a_moment_and_no_error(redis_url: str) -> None:
    began = time.monotonic()

    with celery_queue(redis_url) as tasks:
        tasks.send(PREPARE_QUEUE, HINT)

    assert time.monotonic() - began < SOON_S


@pytest.mark.redis
def test_a_broker_that_dies_between_two_hints_costs_a_moment_and_no_error(redis_url: str) -> None:
    binary = find_binary()
    assert binary is not None
    with redis_server(binary) as url, celery_queue(url) as tasks:
        tasks.send(PREPARE_QUEUE, HINT)
        with connect(url) as client:
            client.shutdown(nosave=True)
        began = time.monotonic()

        tasks.send(PREPARE_QUEUE, HINT)

        assert time.monotonic() - began < SOON_S


@pytest.mark.redis
def test_a_full_broker_costs_no_error(store: RedisStore, redis_url: str) -> None:
    with celery_queue(redis_url) as tasks:
        tasks.send(PREPARE_QUEUE, HINT)
        store.client.config_set("maxmemory", 1)
        try:
            tasks.send(PREPARE_QUEUE, HINT)
        finally:
            store.client.config_set("maxmemory", 0)

    assert store.client.llen("ananse-celery:prepare") == 1


@pytest.mark.redis
def test_what_live_workers_can_hold_is_sent(store: RedisStore) -> None:
    fleet, tasks = Fleet(store), RecordingQueue()
    dispatcher = Dispatcher(Ledger(store), fleet, tasks)
    for number in range(1, 6):
        submit(store, f"job_{number}")
    assert dispatcher.dispatch() == 0

    fleet.beat(WorkerState("w-1", (), {PREPARE_QUEUE: 1}))
    fleet.beat(WorkerState("w-2", (), {PREPARE_QUEUE: 2}))
    fleet.beat(WorkerState("w-3", (), {PREPARE_QUEUE: 9}, draining=True))

    assert dispatcher.dispatch() == 3
    assert tasks.sent == [(PREPARE_QUEUE, Hint(f"job_{number}", PREPARE)) for number in (1, 2, 3)]
    assert dispatcher.dispatch() == 0


@pytest.mark.redis
def test_every_queue_has_slots_of_its_own_and_only_those_asked_for_are_looked_at(store: RedisStore) -> None:
    fleet, tasks, ledger = Fleet(store), RecordingQueue(), Ledger(store)
    dispatcher = Dispatcher(ledger, fleet, tasks)
    submit(store)
    ledger.offer_part(ledger.claim("job_1", PREPARE, "w"), 0, "m", "{}", 1.0)
    submit(store, "job_2")
    fleet.beat(WorkerState("w-1", (), {PREPARE_QUEUE: 2, queue_of("m"): 1}))

    assert dispatcher.dispatch([queue_of("m")]) == 1
    assert tasks.sent == [(queue_of("m"), Hint("job_1", "part-0"))]
    assert dispatcher.dispatch() == 1
    assert tasks.sent[1:] == [(PREPARE_QUEUE, Hint("job_2", PREPARE))]


@pytest.mark.redis
def test_a_dispatch_takes_a_bounded_number_of_steps_and_the_next_one_goes_on(store: RedisStore) -> None:
    fleet, tasks = Fleet(store), RecordingQueue()
    dispatcher = Dispatcher(Ledger(store), fleet, tasks)
    waiting = MOST_HINTS + 5
    for number in range(waiting):
        submit(store, f"job_{number:03}")
    fleet.beat(WorkerState("w-1", (), {PREPARE_QUEUE: 2 * waiting}))

    assert [dispatcher.dispatch() for _ in range(3)] == [MOST_HINTS, 5, 0]
    assert [hint.job_id for _, hint in tasks.sent] == [f"job_{number:03}" for number in range(waiting)]


@pytest.mark.redis
def test_workers_that_are_gone_draw_nothing(store: RedisStore) -> None:
    fleet, tasks = Fleet(store), RecordingQueue()
    dispatcher = Dispatcher(Ledger(store), fleet, tasks)
    submit(store)
    fleet.beat(WorkerState("w-1", (), {PREPARE_QUEUE: 1}))
    store.client.zadd(store.key("fleet"), {"w-1": 1})

    assert dispatcher.dispatch([PREPARE_QUEUE]) == 0
