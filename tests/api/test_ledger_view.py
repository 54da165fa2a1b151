"""What those who look on are told agrees with the ledger, and costs Redis one look however many ask."""

import pytest

from api.ledger_view import FRESH_S, LedgerView
from shared.errors import StoreUnavailable
from shared.fleet import Fleet, WorkerState
from shared.job import Status
from shared.ledger import PREPARE, PREPARE_QUEUE, Ledger
from shared.models import Abilities, ModelCard, queue_of
from shared.redis_store import RedisStore, connect
from shared.task_queue import RedisMessages
from tests.fakes import SteppedClock
from tests.support.jobs import lapse_lease, submit

pytestmark = pytest.mark.redis

MODEL = "m"
NOBODYS = "nobodys"


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
def view(store: RedisStore, clock: SteppedClock) -> LedgerView:
    return LedgerView(store, Fleet(store), RedisMessages(store), [MODEL], clock)


def come_up(store: RedisStore, name: str, speed: float | None = None, draining: bool = False) -> None:
    card = ModelCard(MODEL, "s", "r", "cpu", "float32", 1, Abilities(("en",), (), True, True, True, True))
    rtfx = {MODEL: speed} if speed else {}
    slots = {PREPARE_QUEUE: 2, queue_of(MODEL): 4}
    Fleet(store).beat(WorkerState(name, (card,), slots, draining=draining, rtfx=rtfx))


def test_steps_are_told_by_queue_and_state(view: LedgerView, store: RedisStore, ledger: Ledger) -> None:
    for number in range(4):
        submit(store, f"job_{number}", tenant=f"tenant-{number % 2}", audio_s=10)
    ledger.claim("job_0", PREPARE, "worker")
    ledger.release(ledger.claim("job_1", PREPARE, "worker"), delay_s=60)

    queue = view.look().queues[PREPARE_QUEUE]

    assert (queue.waiting, queue.later, queue.busy) == (2, 1, 1)


@pytest.mark.parametrize("given", [-(10**9), 10**9], ids=["first", "last"])
def test_the_oldest_is_found_at_either_end_of_the_line(
    view: LedgerView, store: RedisStore, given: int
) -> None:
    """Who has been given least or most stands there; more tenants wait than are looked at."""
    for number in range(42):
        submit(store, f"job_{number}", tenant=f"tenant-{number}", audio_s=10)
    store.client.hincrby(store.key("step", "job_30", PREPARE), "since", -90_000)
    store.client.zincrby(store.key("lines", PREPARE_QUEUE), given, "tenant-30")

    assert 90 <= view.look().queues[PREPARE_QUEUE].oldest_s < 100


def test_a_step_is_older_than_its_lost_hint(view: LedgerView, store: RedisStore, ledger: Ledger) -> None:
    submit(store, "job_1", audio_s=10)
    store.client.hincrby(store.key("step", "job_1", PREPARE), "since", -90_000)
    (hint,) = ledger.dispatch(PREPARE_QUEUE, 1, 60)
    store.client.zadd(store.key("busy", PREPARE_QUEUE), {f"{hint.job_id}/{hint.step}": 1})
    ledger.sweep(PREPARE_QUEUE)

    assert view.look().queues[PREPARE_QUEUE].oldest_s >= 90
    assert view.look().hints_resent == 1
    assert ledger.claim("job_1", PREPARE, "worker").waited_s >= 90


def test_the_backlog_is_of_jobs_that_wait_and_of_those_begun(
    view: LedgerView, store: RedisStore, ledger: Ledger
) -> None:
    submit(store, "job_1", model=MODEL, audio_s=100)
    submit(store, "job_2", model=MODEL, audio_s=40)
    submit(store, "job_3", model=NOBODYS, audio_s=5)
    prepare = ledger.claim("job_2", PREPARE, "worker")
    ledger.offer_part(prepare, 0, MODEL, "{}", 60.0)

    loads = view.look().loads

    assert (loads[MODEL].waiting_s, loads[MODEL].running_s, loads[MODEL].backlog_s) == (100, 60, 160)
    assert (loads[NOBODYS].backlog_s, loads[NOBODYS].workers) == (5, 0)


def test_speed_is_that_of_all_who_take_new_work(view: LedgerView, store: RedisStore) -> None:
    come_up(store, "one", speed=10)
    come_up(store, "two")
    come_up(store, "three", speed=8)
    come_up(store, "four", speed=10, draining=True)

    seen = view.look()

    assert (seen.workers, seen.draining) == (4, 1)
    assert (seen.loads[MODEL].workers, seen.loads[MODEL].speed) == (3, 10)
    assert seen.loads[MODEL].fleet_speed == 10 + 10 + 8
    assert seen.queues[queue_of(MODEL)].slots == 3 * 4


def test_ends_and_lapses_are_counted(
    view: LedgerView, store: RedisStore, ledger: Ledger, clock: SteppedClock
) -> None:
    for number in range(3):
        submit(store, f"job_{number}")
    failure = {"failure": {"code": "no_audio", "detail": "", "retryable": False}}
    claim = ledger.claim("job_0", PREPARE, "worker")
    ledger.end(claim, Status.FAILED, failure, webhook=None, retention_s=60)
    ledger.cancel("job_1", webhook=None, retention_s=60)
    lapse_lease(store, ledger.claim("job_2", PREPARE, "worker"))
    ledger.sweep(PREPARE_QUEUE)

    seen = view.look()

    assert seen.ended == {("failed", "no_audio", "m"): 1, ("canceled", "", "m"): 1}
    assert (seen.leases_expired, seen.unsaved) == (1, 2)
    assert seen.redis_used_bytes > 0


def test_redis_is_asked_once_for_all_who_look(
    view: LedgerView, store: RedisStore, clock: SteppedClock
) -> None:
    before = view.look()
    submit(store, "job_1", audio_s=10)

    assert view.look() is before
    clock.advance(FRESH_S)
    assert view.look().queues[PREPARE_QUEUE].waiting == 1


def test_a_store_that_is_away_is_not_asked_again_at_once(clock: SteppedClock) -> None:
    with connect("unix:///nowhere/redis.sock") as client:
        store = RedisStore(client)
        view = LedgerView(store, Fleet(store), RedisMessages(store), [MODEL], clock)
        causes = []
        for _ in range(2):
            with pytest.raises(StoreUnavailable) as raised:
                view.look()
            causes.append(raised.value.__cause__)

    assert causes[0] is causes[1]


def test_looking_costs_no_more_with_more_jobs(store: RedisStore, view: LedgerView) -> None:
    """Commands that Redis runs, the script's own included."""

    def cost() -> int:
        before = store.client.info("stats")["total_commands_processed"]
        LedgerView(store, Fleet(store), RedisMessages(store), [MODEL]).look()
        return int(store.client.info("stats")["total_commands_processed"] - before)

    submit(store, "job_0", audio_s=10)
    submit(store, "job_1", tenant="b", audio_s=10)
    cost()
    few = cost()
    for number in range(100):
        submit(store, f"job_x{number}", audio_s=10)

    assert cost() == few
