"""Somebody beats for what a worker holds, and long work hears of it when the step is lost."""

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from shared.errors import StoreUnavailable
from shared.job_store import JobStore
from shared.ledger import PREPARE, Claim, Fenced, Ledger
from shared.redis_store import RedisStore, connect
from tests.support.jobs import lapse_lease, submit
from tests.support.redis_server import find_binary, redis_server
from tests.support.waiting import wait_until
from worker.leases import Crowded, Draining, Held, Leases

pytestmark = pytest.mark.redis

LEASE_S = 0.09


@pytest.fixture
def ledger(store: RedisStore) -> Ledger:
    return Ledger(store, LEASE_S)


@pytest.fixture
def leases(ledger: Ledger) -> Iterator[Leases]:
    leases = Leases(ledger, LEASE_S)
    yield leases
    leases.close()


def claimed(store: RedisStore, ledger: Ledger, job_id: str = "job_1") -> Claim:
    submit(store, job_id)
    return ledger.claim(job_id, PREPARE, "worker")


def lapses(store: RedisStore, claim: Claim) -> float:
    return float(store.client.hget(store.key("step", claim.job_id, claim.step), "lapses"))


def is_lost(held: Held) -> bool:
    try:
        held.check()
    except Fenced:
        return True
    return False


def test_what_is_held_is_beaten_for(store: RedisStore, ledger: Ledger, leases: Leases) -> None:
    claim = claimed(store, ledger)
    first = lapses(store, claim)

    with leases.hold(claim) as held:
        wait_until(lambda: lapses(store, claim) > first + 2 * LEASE_S * 1000)
        held.check()

    assert leases.count == 0


def test_what_is_no_longer_held_is_not_beaten_for(store: RedisStore, ledger: Ledger, leases: Leases) -> None:
    gone, kept = claimed(store, ledger, "job_1"), claimed(store, ledger, "job_2")
    with leases.hold(kept):
        with leases.hold(gone):
            assert leases.count == 2
        last = lapses(store, kept)

        wait_until(lambda: lapses(store, kept) > last + 2 * LEASE_S * 1000)

    assert lapses(store, gone) < lapses(store, kept)


def test_a_step_that_another_took_is_lost(store: RedisStore, ledger: Ledger, leases: Leases) -> None:
    claim = claimed(store, ledger)
    lapse_lease(store, claim)
    heir = ledger.claim("job_1", PREPARE, "other")
    assert heir.is_held

    with leases.hold(claim) as held:
        wait_until(lambda: is_lost(held))
        with pytest.raises(Fenced, match="fenced"):
            held.check()


def test_a_canceled_job_is_noticed(store: RedisStore, ledger: Ledger, leases: Leases) -> None:
    with leases.hold(claimed(store, ledger)) as held:
        ledger.cancel("job_1", webhook=None, retention_s=60)

        wait_until(lambda: is_lost(held))
        with pytest.raises(Fenced, match="ended"):
            held.check()


def test_a_lost_step_does_not_harm_its_neighbour(store: RedisStore, ledger: Ledger, leases: Leases) -> None:
    lost, kept = claimed(store, ledger, "job_1"), claimed(store, ledger, "job_2")
    with leases.hold(lost) as first, leases.hold(kept) as second:
        ledger.cancel("job_1", webhook=None, retention_s=60)
        wait_until(lambda: is_lost(first))

        second.check()


def test_a_worker_that_drains_says_so_between_windows(
    store: RedisStore, ledger: Ledger, leases: Leases
) -> None:
    with leases.hold(claimed(store, ledger)) as held:
        held.check()

        leases.draining.set()

        with pytest.raises(Draining):
            held.check()


def test_a_step_is_rather_lost_than_handed_back(store: RedisStore, ledger: Ledger, leases: Leases) -> None:
    """Handing back what another holds would only be refused."""
    with leases.hold(claimed(store, ledger)) as held:
        leases.draining.set()
        held.lose(Fenced("ended"))

        with pytest.raises(Fenced, match="ended"):
            held.check()


def test_beating_goes_on_when_redis_is_back(redis_url: str) -> None:
    binary = find_binary()
    assert binary is not None
    with redis_server(binary) as url, connect(url, timeout_s=0.05, retries=0) as client:
        store = RedisStore(client)
        ledger, jobs = Ledger(store, LEASE_S), JobStore(store)
        claim = claimed(store, ledger)
        pid = int(client.info("server")["process_id"])
        leases = Leases(ledger, LEASE_S)
        with leases.hold(claim) as held:
            os.kill(pid, signal.SIGSTOP)
            for _ in range(4):
                with pytest.raises(StoreUnavailable):
                    jobs.ping()
            os.kill(pid, signal.SIGCONT)
            last = lapses(store, claim)

            wait_until(lambda: lapses(store, claim) > last + 2 * LEASE_S * 1000)
            held.check()
        leases.close()


def test_a_step_that_workers_died_on_is_alone_and_the_others_go_back(store: RedisStore) -> None:
    ledger = Ledger(store, 60)
    leases = Leases(ledger, 60)
    suspect, other = (claimed(store, ledger, f"job_{number}") for number in range(2))
    alone, go, begun = threading.Event(), threading.Event(), threading.Event()

    def be_alone() -> None:
        with leases.alone() as is_alone, leases.hold(suspect, is_alone) as held:
            held.check()
            alone.set()
            assert go.wait(10)

    def come_later() -> None:
        leases.wait_for_company()
        begun.set()

    threads = [threading.Thread(target=act) for act in (be_alone, come_later)]
    with leases.hold(other) as held:
        threads[0].start()
        wait_until(lambda: leases.is_reserved)
        assert not alone.is_set()
        with pytest.raises(Crowded):
            held.check()
    assert alone.wait(10)
    threads[1].start()
    assert not begun.is_set()
    go.set()
    assert begun.wait(10)
    for thread in threads:
        thread.join(timeout=10)
    assert not leases.is_reserved
    leases.close()


def test_a_step_claimed_while_another_waits_to_be_alone_goes_back(store: RedisStore) -> None:
    ledger = Ledger(store, 60)
    leases = Leases(ledger, 60)
    with leases.alone() as is_alone, leases.hold(claimed(store, ledger)) as late:
        assert is_alone
        with pytest.raises(Crowded):
            late.check()
    leases.close()


def test_who_cannot_be_alone_in_time_is_told_and_leaves_no_trace(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.leases._ALONE_S", 0.05)
    ledger = Ledger(store, 60)
    leases = Leases(ledger, 60)
    with leases.hold(claimed(store, ledger)), leases.alone() as is_alone:
        assert not is_alone
        with leases.alone() as second:
            assert not second
        assert leases.is_reserved
    assert not leases.is_reserved
    leases.close()
