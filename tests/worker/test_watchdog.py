"""When a worker ends itself, so that a new one takes its place."""

import mmap
from collections.abc import Iterable, Iterator
from dataclasses import replace

import pytest

from shared.ledger import PREPARE_QUEUE, Hint
from shared.redis_store import RedisStore
from shared.settings import Settings
from shared.task_queue import CeleryQueue, RedisMessages, make_celery
from tests.support.worker_context import MODEL, worker_context
from worker.context import Context
from worker.watchdog import Hearing, Watchdog, own_bytes, rss_bytes

pytestmark = pytest.mark.redis


@pytest.fixture
def context(settings: Settings, store: RedisStore) -> Iterator[Context]:
    slots = {"prepare_slots": 3, "part_slots": 5, "deliver_slots": 2}
    with worker_context(Settings(**(settings.model_dump(exclude_unset=True) | slots)), store) as context:
        yield context


@pytest.mark.redis
def url_of(store: RedisStore) -> str:
    return f"unix://{store.client.connection_pool.connection_kwargs['path']}?db=0"


def test_a_broker_library_that_breaks_does_not_end_the_heartbeat(context: Context) -> None:
    """kombu 5.7.0 on a connection that is gone: 'NoneType' object has no attribute 'channel'."""

    class Broken:
        def waiting(self, queues: Iterable[str]) -> int:
            raise AttributeError("'NoneType' object has no attribute 'channel'")

    Watchdog(replace(context, messages=Broken())).look()


def test_who_fetches_nothing_while_messages_wait_is_deaf() -> None:
    hearing = Hearing(30)
    assert not hearing.is_deaf(5, 0, 0)
    assert not hearing.is_deaf(5, 0, 29)
    assert hearing.is_deaf(5, 0, 31)


def test_who_fetches_or_has_nothing_to_fetch_is_not() -> None:
    hearing = Hearing(30)
    for now in range(0, 300, 10):
        assert not hearing.is_deaf(5, now // 20, now)
    assert not hearing.is_deaf(0, 14, 400)
    assert not hearing.is_deaf(3, 14, 800)
    assert hearing.is_deaf(3, 14, 831)


def test_messages_of_a_worker_s_queues_are_counted(store: RedisStore) -> None:
    with make_celery(url_of(store)) as celery:
        for _ in range(3):
            CeleryQueue(celery).send(PREPARE_QUEUE, Hint("job_1", "prepare"))

    assert RedisMessages(store).waiting([PREPARE_QUEUE, "deliver"]) == 3


def test_weights_that_come_and_go_are_no_growth(context: Context) -> None:
    engine, card = context.engines[MODEL]
    weights = 2**40
    heavy = replace(context, engines={MODEL: (engine, replace(card, parameters=weights // 4))})
    assert rss_bytes() - own_bytes(heavy) > weights * 0.99

    engine._resident.rest()

    assert abs(rss_bytes() - own_bytes(heavy)) < weights * 0.01


def test_silence_that_models_remember_is_no_growth(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes after a worker is ready, level by level."""
    ended: list[int] = []
    monkeypatch.setattr("os.kill", lambda _pid, number: ended.append(number))
    engine, card = context.engines[MODEL]
    strict = replace(context, settings=context.settings.model_copy(update={"memory_growth_bytes": 1}))
    told = replace(card, details={"silence_bytes": str(2**40)})

    Watchdog(replace(strict, engines={MODEL: (engine, told)})).look()
    assert not ended
    Watchdog(strict).look()
    assert ended


def test_memory_is_told() -> None:
    before, size = rss_bytes(), 64 * 2**20
    # Not from the heap, which may have room that it never gave back.
    with mmap.mmap(-1, size) as held:
        for page in range(0, size, mmap.PAGESIZE):
            held[page] = 1
        assert rss_bytes() - before >= size * 0.9
