"""Who is alive is who was heard of lately, and only what they can hold is sent."""

import pytest

from shared.fleet import ALIVE_S, Fleet, WorkerState, capacity
from shared.models import Abilities, ModelCard
from shared.redis_store import RedisStore

CARD = ModelCard(
    "m",
    "models/m",
    "r1",
    "cpu",
    "float32",
    1_000,
    Abilities(("en", "tw"), ("transcribe",), True, True, True, False, 30.0, ("mended",)),
    {"layers": "4"},
)


def worker(name: str, *, draining: bool = False, **slots: int) -> WorkerState:
    return WorkerState(name, (CARD,), slots, draining=draining)


@pytest.fixture
def fleet(store: RedisStore) -> Fleet:
    return Fleet(store)


@pytest.mark.redis
def test_a_worker_is_seen_as_it_described_itself(fleet: Fleet) -> None:
    state = WorkerState(
        "w-1", (CARD,), {"prepare": 2}, "host", 7, 1, True, 123, {"m": 12.5}, {"m": {"windows": 3.0}}
    )

    fleet.beat(state)

    assert fleet.live() == (state,)


@pytest.mark.redis
def test_the_last_beat_counts(fleet: Fleet) -> None:
    fleet.beat(worker("w-1", prepare=1))
    fleet.beat(worker("w-1", prepare=2))

    assert [one.slots for one in fleet.live()] == [{"prepare": 2}]


@pytest.mark.redis
def test_workers_are_named_in_order_until_they_leave(fleet: Fleet) -> None:
    for name in ("w-2", "w-1"):
        fleet.beat(worker(name))
    assert [one.name for one in fleet.live()] == ["w-1", "w-2"]

    fleet.leave("w-1")

    assert [one.name for one in fleet.live()] == ["w-2"]
    fleet.leave("w-2")
    assert fleet.live() == ()


@pytest.mark.redis
def test_a_silent_worker_is_no_longer_there_until_it_speaks_again(fleet: Fleet, store: RedisStore) -> None:
    fleet.beat(worker("w-1"))
    fleet.beat(worker("w-2"))
    assert 0 < store.client.pttl(store.key("worker", "w-1")) <= ALIVE_S * 1000

    store.client.pexpire(store.key("worker", "w-1"), 0)

    assert [one.name for one in fleet.live()] == ["w-2"]
    assert store.client.smembers(store.key("workers")) == {"w-2"}
    fleet.beat(worker("w-1"))
    assert [one.name for one in fleet.live()] == ["w-1", "w-2"]


def test_all_workers_together_hold_what_each_of_them_holds() -> None:
    workers = [worker("w-1", prepare=2, deliver=4), worker("w-2", prepare=3)]

    assert [capacity(workers, queue) for queue in ("prepare", "deliver", "transcribe.m")] == [5, 4, 0]


def test_a_worker_that_is_stopping_holds_nothing_more() -> None:
    assert capacity([worker("w-1", prepare=2), worker("w-2", draining=True, prepare=3)], "prepare") == 2
