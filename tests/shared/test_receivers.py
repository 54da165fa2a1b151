"""Receivers of webhooks: who does not answer holds up nobody else, and who only fails is left alone."""

import hashlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.job import Delivery
from shared.job_store import JobStore
from shared.ledger import DELIVER, DELIVER_QUEUE, Claim, ClaimOutcome, Hint, Ledger, ReplayOutcome
from shared.receivers import Receivers
from shared.redis_store import RedisStore, connect
from tests.support.jobs import NOW, lapse_hint, submit

pytestmark = pytest.mark.redis

CAPACITY = 16
URL = "https://slow.example/hook?token=secret"
DAY_MS = 86_400_000
FIVE_DAYS_MS = 5 * DAY_MS


@pytest.fixture
def receivers(store: RedisStore) -> Receivers:
    return Receivers(store)


def end(store: RedisStore, job_id: str, url: str, tenant: str = "default") -> None:
    submit(store, job_id, tenant=tenant, webhook_url=url)
    assert Ledger(store).cancel(job_id, webhook=b"{}", retention_s=60)


def given_out(ledger: Ledger, capacity: int = CAPACITY) -> list[str]:
    return [hint.job_id for hint in ledger.dispatch(DELIVER_QUEUE, capacity, hint_s=20)]


def take(ledger: Ledger, job_id: str) -> Claim:
    claim = ledger.claim(job_id, DELIVER, "w")
    assert claim.outcome is ClaimOutcome.CLAIMED
    return claim


def row(status: int | None, duration_s: float = 0.1) -> Delivery:
    return Delivery(1, NOW, status, duration_s)


def answer(ledger: Ledger, job_id: str, duration_s: float = 0.1) -> None:
    ledger.delivered(take(ledger, job_id), row(200, duration_s), "delivered")


def fail(ledger: Ledger, job_id: str, delay_s: float = 0.0) -> bool:
    return ledger.redeliver(take(ledger, job_id), row(None, 15.0), delay_s)


def receiver_key(store: RedisStore, url: str = URL, tenant: str = "default") -> str:
    return store.key("receiver", f"{tenant}|{hashlib.sha1(url.encode()).hexdigest()}")


def let_pass(store: RedisStore, ms: int) -> None:
    """For the receiver: what it did is so much longer ago."""
    for name in ("failing_since", "failed_at"):
        store.client.hincrby(receiver_key(store), name, -ms)


def test_a_receiver_nobody_knows_is_asked_once_at_a_time(store: RedisStore, ledger: Ledger) -> None:
    for number in range(5):
        end(store, f"job_{number}", URL)

    assert given_out(ledger) == ["job_0"]
    assert given_out(ledger) == []


def test_others_are_not_held_up_by_it(store: RedisStore, ledger: Ledger) -> None:
    """Of the same tenant, and behind a thousand."""
    for number in range(1000):
        end(store, f"job_slow_{number}", URL)
    assert given_out(ledger) == ["job_slow_0"]
    end(store, "job_quick", "https://quick.example/hook")
    end(store, "job_other", "https://slow.example/hook", tenant="other")

    assert set(given_out(ledger)) == {"job_quick", "job_other"}


def test_its_next_waits_until_it_has_answered(store: RedisStore, ledger: Ledger) -> None:
    for number in range(20):
        end(store, f"job_{number:02}", URL)
    assert given_out(ledger) == ["job_00"]

    answer(ledger, "job_00")

    assert len(given_out(ledger)) == CAPACITY // 2


@pytest.mark.parametrize("way", ["a slow answer", "none at all"])
def test_a_slow_one_goes_on_one_at_a_time(store: RedisStore, ledger: Ledger, way: str) -> None:
    for number in range(5):
        end(store, f"job_{number}", URL)
    assert given_out(ledger) == ["job_0"]

    if way == "a slow answer":
        answer(ledger, "job_0", duration_s=3.0)
    else:
        fail(ledger, "job_0", delay_s=60)

    assert given_out(ledger) == ["job_1"]
    assert given_out(ledger) == []


def test_paths_of_one_server_share_its_room(store: RedisStore, ledger: Ledger) -> None:
    for number in range(5):
        end(store, f"job_{number}", f"https://SLOW.example/{number}")

    assert len(given_out(ledger)) == 1


def test_many_slow_ones_of_a_tenant_leave_room_for_a_new_one(store: RedisStore, ledger: Ledger) -> None:
    for number in range(40):
        end(store, f"job_slow_{number:02}", f"https://slow{number:02}.example/")
    first = given_out(ledger)
    assert len(first) == CAPACITY * 3 // 4
    for job_id in first:
        fail(ledger, job_id)
    second = given_out(ledger)
    again = [job_id for job_id in second if job_id in first]
    assert len(again) <= CAPACITY // 8
    assert len(second) < CAPACITY
    end(store, "job_other", "https://quick.example/", tenant="other")

    assert given_out(ledger) == ["job_other"]


def test_a_hint_that_was_lost_leaves_its_room(store: RedisStore, ledger: Ledger) -> None:
    end(store, "job_0", URL)
    end(store, "job_1", URL)
    (hint,) = ledger.dispatch(DELIVER_QUEUE, CAPACITY, hint_s=20)
    lapse_hint(store, DELIVER_QUEUE, hint)
    ledger.sweep(DELIVER_QUEUE)

    assert len(given_out(ledger)) == 1
    assert store.client.hget(store.key("flights"), "default|new") == "1"


def test_a_deleted_job_leaves_its_room(store: RedisStore, ledger: Ledger) -> None:
    end(store, "job_0", URL)
    end(store, "job_1", URL)
    assert given_out(ledger) == ["job_0"]

    JobStore(store).delete("job_0")

    assert given_out(ledger) == ["job_1"]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_whatever_happens_every_delivery_has_its_turn(redis_url: str, data: st.DataObject) -> None:
    """Nobody who was set aside is forgotten, however few the slots are and whoever fails."""
    with connect(redis_url) as client:
        client.flushdb()
        store = RedisStore(client)
        ledger = Ledger(store)
        capacity = data.draw(st.integers(1, 8))
        # Who is sent first hangs on Redis's clock, and what is drawn must not.
        chance = random.Random(data.draw(st.integers(0, 2**32)))
        left = set()
        for number in range(data.draw(st.integers(1, 25))):
            server, tenant = chance.randrange(7), chance.choice("ab")
            end(store, f"job_{number}", f"https://{server}.example/", tenant)
            left.add(f"job_{number}")
        for _ in range(400):
            sent = given_out(ledger, capacity)
            if not sent:
                break
            for job_id in chance.sample(sent, len(sent)):
                act = chance.choice(["good", "slow", "fail", "gone", "delete", "lapse"])
                if act == "lapse":
                    lapse_hint(store, DELIVER_QUEUE, Hint(job_id, DELIVER))
                    ledger.sweep(DELIVER_QUEUE)
                    continue
                if act == "delete":
                    JobStore(store).delete(job_id)
                elif act == "fail":
                    ledger.delivered(take(ledger, job_id), row(500), "failed")
                elif act == "gone":
                    ledger.delivered(take(ledger, job_id), row(410), "gone")
                else:
                    answer(ledger, job_id, 0.1 if act == "good" else 5.0)
                left.discard(job_id)
        assert left == set()
        assert client.hgetall(store.key("flights")) == {}


def test_who_only_fails_for_five_days_is_disabled(
    store: RedisStore, ledger: Ledger, receivers: Receivers
) -> None:
    end(store, "job_0", URL)
    for _ in range(10):
        assert fail(ledger, "job_0")
        let_pass(store, DAY_MS // 2 - 60_000)
    assert fail(ledger, "job_0")
    let_pass(store, 11 * 60_000)

    assert not fail(ledger, "job_0")

    (found,) = receivers.failing()
    assert (found.reason, found.url, found.tenant) == ("failing", "https://slow.example/hook", "default")
    assert JobStore(store).get("job_0").webhook_status == "failed"
    end(store, "job_1", URL)
    assert receivers.is_disabled(take(ledger, "job_1"))


def test_a_short_bound_of_failures_is_heard(store: RedisStore, ledger: Ledger) -> None:
    end(store, "job_0", URL)
    assert fail(ledger, "job_0")
    let_pass(store, 61_000)

    assert not ledger.redeliver(take(ledger, "job_0"), row(500), 0, disable_s=60)


def test_a_success_forgets_the_failures(store: RedisStore, ledger: Ledger, receivers: Receivers) -> None:
    """Six days of failures, and one success in their middle."""
    for number in range(2):
        end(store, f"job_{number}", URL)
    for number in range(12):
        assert fail(ledger, "job_0")
        let_pass(store, DAY_MS // 2 - 60_000)
        if number == 5:
            answer(ledger, "job_1")

    assert fail(ledger, "job_0")
    assert receivers.failing()[0].disabled_at is None


def test_a_day_without_failures_begins_anew(store: RedisStore, ledger: Ledger, receivers: Receivers) -> None:
    end(store, "job_0", URL)
    assert fail(ledger, "job_0")
    let_pass(store, FIVE_DAYS_MS)

    assert fail(ledger, "job_0")
    assert receivers.failing()[0].disabled_at is None


def test_gone_disables_at_once_and_only_that_tenant_s_address(
    store: RedisStore, ledger: Ledger, receivers: Receivers
) -> None:
    end(store, "job_0", URL)
    ledger.delivered(take(ledger, "job_0"), row(410), "gone")
    for job_id, url, tenant in (
        ("job_same", URL, "default"),
        ("job_path", "https://slow.example/other", "default"),
        ("job_else", URL, "other"),
    ):
        end(store, job_id, url, tenant)

    disabled = [receivers.is_disabled(take(ledger, job)) for job in ("job_same", "job_path", "job_else")]

    assert disabled == [True, False, False]
    assert [one.reason for one in receivers.failing()] == ["gone"]


def test_a_replay_asks_again(store: RedisStore, ledger: Ledger, receivers: Receivers) -> None:
    end(store, "job_0", URL)
    ledger.delivered(take(ledger, "job_0"), row(410), "gone")

    assert ledger.replay("job_0") is ReplayOutcome.REPLAYED

    assert receivers.failing() == ()
    assert JobStore(store).get("job_0").webhook_status == "pending"
    assert given_out(ledger) == ["job_0"]
    assert not receivers.is_disabled(take(ledger, "job_0"))


def test_a_replay_of_one_that_was_put_off_does_not_wait(store: RedisStore, ledger: Ledger) -> None:
    end(store, "job_0", URL)
    fail(ledger, "job_0", delay_s=36_000)
    assert given_out(ledger) == []

    assert [ledger.replay("job_0"), ledger.replay("job_0")] == [ReplayOutcome.REPLAYED] * 2

    assert given_out(ledger) == ["job_0"]
    assert ledger.replay("job_0") is ReplayOutcome.REPLAYED
    assert given_out(ledger) == []
    claim = take(ledger, "job_0")
    assert ledger.tries(claim) == 0
    assert ledger.replay("job_0") is ReplayOutcome.SENDING


def test_there_is_no_replay_of_what_was_never_delivered(store: RedisStore, ledger: Ledger) -> None:
    submit(store, "job_0", webhook_url=URL)

    assert ledger.replay("job_0") is ReplayOutcome.GONE
    assert ledger.replay("job_x") is ReplayOutcome.GONE


def test_an_operator_enables_one_by_hand(store: RedisStore, ledger: Ledger, receivers: Receivers) -> None:
    end(store, "job_0", URL)
    ledger.delivered(take(ledger, "job_0"), row(410), "gone")

    assert [receivers.enable("other", URL), receivers.enable("default", URL)] == [False, True]

    assert receivers.failing() == ()
