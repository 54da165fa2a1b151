"""Who is alive is who was heard of lately, and only what they can hold is sent."""

import pytest

from shared.fleet import ALIVE_S, LOOK_S, Fleet, WorkerState, capacity
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

    fall_silent(store, "w-1")

    assert fleet.count() == 1
    assert [one.name for one in fleet.live()] == ["w-2"]
    fleet.beat(worker("w-1"))
    assert fleet.count() == 2
    assert [one.name for one in fleet.live()] == ["w-1", "w-2"]


def fall_silent(store: RedisStore, name: str) -> None:
    """As if it had not been heard of for ALIVE_S."""
    store.client.delete(store.key("worker", name))
    store.client.zadd(store.key("fleet"), {name: 1}, xx=True)


@pytest.mark.redis
def test_slots_are_those_of_live_workers_together(fleet: Fleet, store: RedisStore) -> None:
    fleet.beat(worker("w-1", prepare=2, deliver=4))
    fleet.beat(worker("w-2", prepare=3))
    assert fleet.slots() == {"prepare": 5, "deliver": 4}
    fleet.beat(worker("w-2", prepare=1))
    fleet.beat(worker("w-2", prepare=1))
    assert fleet.slots() == {"prepare": 3, "deliver": 4}

    fleet.beat(worker("w-1", draining=True, prepare=2, deliver=4))
    assert fleet.slots() == {"prepare": 1}
    fleet.leave("w-1")
    assert fleet.slots() == {"prepare": 1}
    fleet.leave("w-2")
    assert fleet.slots() == {}
    assert set(store.client.keys()) <= {store.key("looked")}


@pytest.mark.redis
def test_who_falls_silent_holds_nothing_whoever_looks(fleet: Fleet, store: RedisStore) -> None:
    for name in ("w-1", "w-2"):
        fleet.beat(worker(name, prepare=2))
    fall_silent(store, "w-1")
    assert fleet.slots() == {"prepare": 2}

    fall_silent(store, "w-2")
    fleet.beat(worker("w-3", prepare=7))
    fleet.beat(worker("w-1", prepare=2))

    assert fleet.slots() == {"prepare": 9}


@pytest.mark.redis
def test_one_worker_looks_for_work_and_so_does_whoever_has_new_room(fleet: Fleet, store: RedisStore) -> None:
    assert fleet.beat(worker("w-1", prepare=2)).looks
    assert fleet.beat(worker("w-2", prepare=2)).looks
    assert not fleet.beat(worker("w-1", prepare=2)).looks
    assert fleet.beat(worker("w-1", prepare=3)).looks
    assert not fleet.beat(worker("w-2", prepare=2)).looks

    assert 0 < store.client.pttl(store.key("looked")) <= LOOK_S * 1000
    store.client.delete(store.key("looked"))

    assert fleet.beat(worker("w-2", prepare=2)).looks
    assert not fleet.beat(worker("w-1", prepare=3)).looks


@pytest.mark.redis
def test_what_a_dispatch_asks_of_redis_does_not_grow_with_the_fleet(fleet: Fleet, store: RedisStore) -> None:
    def asked() -> tuple[int, int]:
        """Commands, those inside the scripts too, and bytes of the answers."""
        before = store.client.info("stats")
        assert fleet.slots()["prepare"] > 0
        after = store.client.info("stats")
        return tuple(  # type: ignore[return-value]
            after[name] - before[name] for name in ("total_commands_processed", "total_net_output_bytes")
        )

    fleet.beat(worker("w-0", prepare=1))
    of_one = asked()
    for number in range(1, 100):
        fleet.beat(worker(f"w-{number}", prepare=1))

    of_hundred = asked()
    assert of_hundred[0] == of_one[0]
    assert of_hundred[1] < of_one[1] + 200


def test_all_workers_together_hold_what_each_of_them_holds() -> None:
    workers = [worker("w-1", prepare=2, deliver=4), worker("w-2", prepare=3)]

    assert [capacity(workers, queue) for queue in ("prepare", "deliver", "transcribe.m")] == [5, 4, 0]


def test_a_worker_that_is_stopping_holds_nothing_more() -> None:
    assert capacity([worker("w-1", prepare=2), worker("w-2", draining=True, prepare=3)], "prepare") == 2
