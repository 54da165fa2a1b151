"""The laws of the ledger, whatever the order of events: played by Hypothesis on a real Redis."""

import hashlib
from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from shared.errors import StoreUnavailable
from shared.job import TRANSITIONS, Delivery, Options, Status
from shared.job_store import JobStore, NewJob
from shared.ledger import ALL_QUEUES, Claim, ClaimOutcome, Fenced, Hint, Ledger, RequeueOutcome, part_step
from shared.redis_store import RedisStore
from shared.transcript import WindowResult
from shared.usage import Usage, Used
from tests.support.jobs import NOW, lapse_hint, lapse_lease, media

pytestmark = pytest.mark.redis

MODEL = "m"
TENANTS = ("ama", "kofi")
AUDIO_S = 30
MOST_PARTS = 2
ORDER = ("prepare", "part", "finish", "deliver")
QUEUES = ("prepare", "deliver", f"transcribe.{MODEL}")
PARTS = st.integers(0, 2)
RARELY = st.integers(0, 5)
"""What ends a job happens when this is 0: else every story would be short."""
OPERATORS = ("requeue", "requeue", "return a hint", "pause")


@dataclass
class Known:
    """What the test was promised about one job."""

    status: Status = Status.QUEUED
    webhook: bool = False
    holders: dict[str, int] = field(default_factory=dict)
    """Attempt that holds each leased step."""
    done: set[str] = field(default_factory=set)
    steps: set[str] = field(default_factory=lambda: {"prepare"})
    kept: set[int] = field(default_factory=set)
    live: dict[str, Claim] = field(default_factory=dict)
    finished_parts: set[str] = field(default_factory=set)
    deliveries: int = 0


class LedgerLaws(RuleBasedStateMachine):
    """Every claim ever made stays in the bundle, so late and doubled workers speak up all the time."""

    jobs = Bundle("jobs")
    claims = Bundle("claims")

    store: RedisStore

    def __init__(self) -> None:
        super().__init__()
        self.store.client.flushdb()
        self.ledger = Ledger(self.store, lease_s=60)
        self.records = JobStore(self.store)
        self.known: dict[str, Known] = {}
        self.paused: set[str] = set()

    @precondition(lambda self: sum(not known.status.is_terminal for known in self.known.values()) < 2)
    @rule(target=jobs, webhook=st.booleans())
    def submit(self, webhook: bool) -> str:
        job_id = f"job_{len(self.known)}"
        options = Options(model=MODEL, webhook_url="https://example.org/hook" if webhook else None)
        tenant = TENANTS[len(self.known) % len(TENANTS)]
        new = NewJob(job_id, tenant, options, media(), audio_s=AUDIO_S, key_id=tenant)
        job, is_new = self.records.create(new)
        assert is_new
        assert job.status is Status.QUEUED
        self.known[job_id] = Known(webhook=webhook)
        return job_id

    @rule(target=claims, job_id=jobs, data=st.data())
    def claim(self, job_id: str, data: st.DataObject) -> object:
        open_steps = sorted(self.known[job_id].steps - self.known[job_id].done)
        step = data.draw(st.sampled_from(open_steps * 3 + ["prepare", "part-0", "finish", "deliver-0"]))
        return self.claim_step(job_id, step)

    @rule(target=claims, job_id=jobs, is_latest=st.booleans())
    def go_on(self, job_id: str, is_latest: bool) -> object:
        """What a worker without any trouble would do next, at the job's first or latest open step: else few
        stories would get far."""
        known = self.known[job_id]
        open_steps = sorted(known.steps - known.done, key=lambda step: ORDER.index(step.split("-")[0]))
        for step in reversed(open_steps) if is_latest else open_steps:
            if step not in known.holders:
                return self.claim_step(job_id, step)
            self.work(known.live[step], known)
            break
        return multiple()

    @rule(job_id=jobs)
    def do_a_window_again(self, job_id: str) -> None:
        """As a worker does that missed the answer to its checkpoint."""
        known = self.known[job_id]
        for kept in sorted(known.kept):
            step = part_step(kept // 10)
            if step in known.holders:
                self.checkpoint(known.live[step], kept % 10)
                return

    def work(self, claim: Claim, known: Known) -> None:
        parts = sum(step.startswith("part") for step in known.steps)
        if claim.step == "prepare":
            self.offer_part(claim, parts) if parts < MOST_PARTS else self.prepared(claim)
        elif claim.step.startswith("part"):
            open_windows = [i for i in (0, 1) if int(claim.step[5:]) * 10 + i not in known.kept]
            self.checkpoint(claim, open_windows[0]) if open_windows else self.finish_part(claim)
        elif claim.step == "finish":
            self.end(claim, Status.COMPLETED, 0)
        else:
            self.deliver(claim, True)

    def claim_step(self, job_id: str, step: str) -> object:
        known = self.known[job_id]
        claim = self.ledger.claim(job_id, step, "worker")
        is_delivery = step.startswith("deliver")
        if step not in known.steps:
            assert claim.outcome is ClaimOutcome.GONE
        elif known.status.is_terminal and not is_delivery:
            assert claim.outcome is ClaimOutcome.ENDED
        elif step in known.done:
            assert claim.outcome is ClaimOutcome.DONE
        elif step in known.holders:
            assert claim.outcome is ClaimOutcome.TAKEN
        else:
            assert claim.outcome is ClaimOutcome.CLAIMED
        if not claim.is_held:
            return multiple()
        known.holders[step] = claim.attempt
        known.live[step] = claim
        if known.status is Status.QUEUED:
            known.status = Status.RUNNING
        return claim

    @rule(claim=claims)
    def beat(self, claim: Claim) -> None:
        self.expect_fence(claim, lambda: self.ledger.beat(claim))

    @rule(claim=claims, index=st.integers(0, 1))
    def checkpoint(self, claim: Claim, index: int) -> None:
        if not claim.step.startswith("part"):
            return
        result = WindowResult(index, index, index + 1, ())
        if self.expect_fence(claim, lambda: self.ledger.checkpoint(claim, result, 1.0)):
            number = int(claim.step.split("-")[1])
            self.known[claim.job_id].kept.add(number * 10 + index)

    @rule(claim=claims, number=PARTS)
    def offer_part(self, claim: Claim, number: int) -> None:
        if claim.step != "prepare":
            return
        if self.expect_fence(claim, lambda: self.ledger.offer_part(claim, number, MODEL, "{}", 10.0)):
            self.known[claim.job_id].steps.add(part_step(number))

    @rule(claim=claims)
    def prepared(self, claim: Claim) -> None:
        parts = sum(step.startswith("part") for step in self.known[claim.job_id].steps)
        if claim.step == "prepare" and self.expect_fence(
            claim, lambda: self.ledger.prepared(claim, parts, {})
        ):
            self.finish_step(claim)

    @rule(claim=claims)
    def finish_part(self, claim: Claim) -> None:
        if claim.step.startswith("part") and self.expect_fence(claim, lambda: self.ledger.finish_part(claim)):
            self.known[claim.job_id].finished_parts.add(claim.step)
            self.finish_step(claim)

    @rule(claim=claims, status=st.sampled_from([Status.COMPLETED, Status.FAILED]), luck=RARELY)
    def end(self, claim: Claim, status: Status, luck: int) -> None:
        if (
            (luck and status is Status.FAILED)
            or claim.step.startswith("deliver")
            or (status is Status.COMPLETED and claim.step != "finish")
        ):
            return
        known = self.known[claim.job_id]
        body = b'{"type":"job"}' if known.webhook else None
        if self.expect_fence(claim, lambda: self.ledger.end(claim, status, {}, webhook=body, retention_s=60)):
            self.end_known(known, status)

    @rule(job_id=jobs, luck=RARELY)
    def cancel(self, job_id: str, luck: int) -> None:
        if luck:
            return
        known = self.known[job_id]
        body = b'{"type":"job"}' if known.webhook else None
        won = self.ledger.cancel(job_id, webhook=body, retention_s=60)
        assert won == (not known.status.is_terminal)
        if won:
            self.end_known(known, Status.CANCELED)

    @rule(claim=claims, delay_s=st.sampled_from([0.0, 0.0, 3600.0]))
    def release(self, claim: Claim, delay_s: float) -> None:
        if self.expect_fence(claim, lambda: self.ledger.release(claim, delay_s)):
            del self.known[claim.job_id].holders[claim.step]

    @rule(claim=claims)
    def put_off_and_taken_back(self, claim: Claim) -> None:
        """For an hour, and an operator will not wait: chance alone hardly ever brings the two together."""
        if self.holds(claim):
            self.release(claim, 3600.0)
            self.requeue(claim.job_id, claim.step, "")

    @rule(claim=claims, arrived=st.booleans())
    def deliver(self, claim: Claim, arrived: bool) -> None:
        if not claim.step.startswith("deliver"):
            return
        delivery = Delivery(1, NOW, 200 if arrived else 500, 0.1)
        act = (
            (lambda: self.ledger.delivered(claim, delivery, "delivered"))
            if arrived
            else (lambda: self.ledger.redeliver(claim, delivery, 0))
        )
        if self.expect_fence(claim, act):
            known = self.known[claim.job_id]
            known.deliveries += 1
            if arrived:
                self.finish_step(claim)
            else:
                del known.holders[claim.step]

    @rule(claim=claims)
    def worker_dies(self, claim: Claim) -> None:
        """The lease lapses and the sweeper looks; from then on the old worker is refused."""
        if self.holds(claim):
            lapse_lease(self.store, claim)
            self.sweep()
            del self.known[claim.job_id].holders[claim.step]

    @rule(job_id=jobs, data=st.data(), act=st.sampled_from(OPERATORS))
    def by_hand(self, job_id: str, data: st.DataObject, act: str) -> None:
        """One rule for all that an operator does, so that stories are still about work."""
        step = data.draw(st.sampled_from(sorted(self.known[job_id].steps | {"part-0", "deliver-0"})))
        if act == "pause":
            self.pause_or_resume(data.draw(st.sampled_from((*QUEUES, ALL_QUEUES))))
        elif act == "return a hint":
            self.return_hint(job_id, step)
        else:
            self.requeue(job_id, step, data.draw(st.sampled_from(["", "worker", "another"])))

    def requeue(self, job_id: str, step: str, worker: str) -> None:
        """A step is taken back, from whoever holds it or from one worker only; from then on the holder is
        refused."""
        known = self.known[job_id]
        outcome = self.ledger.requeue(job_id, step, worker).outcome
        if step not in known.steps:
            assert outcome is RequeueOutcome.GONE
        elif known.status.is_terminal and not step.startswith("deliver"):
            assert outcome is RequeueOutcome.ENDED
        elif step in known.done:
            assert outcome is RequeueOutcome.DONE
        elif worker == "another" or (worker and step not in known.holders):
            assert outcome is RequeueOutcome.OTHER
        elif step in known.holders:
            assert outcome is RequeueOutcome.REQUEUED
            del known.holders[step]
        else:
            assert outcome in (RequeueOutcome.REQUEUED, RequeueOutcome.WAITING)

    def return_hint(self, job_id: str, step: str) -> None:
        """A worker that drains was sent it, or a late double of it."""
        known = self.known[job_id]
        if self.ledger.return_hint(job_id, step) is not None:
            assert step in known.steps - known.done - known.holders.keys()

    def pause_or_resume(self, queue: str) -> None:
        if self.paused:
            self.ledger.resume(self.paused)
            self.paused.clear()
        else:
            self.ledger.pause([queue])
            self.paused.add(queue)
        assert self.ledger.paused() == self.paused

    @rule()
    def dispatch_and_lose_the_hints(self) -> None:
        for hint, queue in self.given_out():
            lapse_hint(self.store, queue, hint)
        self.sweep()

    @rule()
    def dispatch(self) -> None:
        self.given_out()

    def given_out(self) -> list[tuple[Hint, str]]:
        given = []
        for queue in QUEUES:
            hints = self.ledger.dispatch(queue, 100, hint_s=60)
            assert not (hints and self.paused & {queue, ALL_QUEUES})
            given += [(hint, queue) for hint in hints]
        return given

    @invariant()
    def states_are_the_promised_ones(self) -> None:
        for job_id, known in self.known.items():
            assert self.records.get(job_id).status is known.status

    @invariant()
    def nothing_is_lost(self) -> None:
        """Every step that is neither done nor dropped is in its queue, once: waiting or looked after."""
        queued = [
            reference
            for queue in QUEUES
            for key in (*self.lines(queue), self.store.key("later", queue), self.store.key("busy", queue))
            for reference in self.store.client.zrange(key, 0, -1)
        ]
        assert len(queued) == len(set(queued))
        expected = {
            f"{job_id}/{step}"
            for job_id, known in self.known.items()
            for step in known.steps - known.done
            if not known.status.is_terminal or step.startswith("deliver")
        }
        assert set(queued) == expected

    @invariant()
    def who_has_something_waiting_is_in_line(self) -> None:
        """And only they are, with as much audio as they wait for."""
        for queue in QUEUES:
            lengths = {
                name: self.store.client.zcard(line)
                for name, line in zip(names(queue), self.lines(queue), strict=True)
            }
            in_line = set(self.store.client.zrange(self.store.key("lines", queue), 0, -1))
            aside = {name for name, length in lengths.items() if length} - in_line
            assert in_line <= lengths.keys() - {name for name, length in lengths.items() if not length}
            assert all(int(self.store.client.hget(self.store.key("flights"), name) or 0) for name in aside)
            waits = self.store.client.hgetall(self.store.key("waits", queue))
            assert {tenant: int(ms) for tenant, ms in waits.items()} == {
                tenant: sum(map(self.left_ms, self.store.client.zrange(line, 0, -1)))
                for tenant, line in zip(names(queue), self.lines(queue), strict=True)
                if lengths[tenant]
            }
            counted = int(self.store.client.hget(self.store.key("lengths"), queue) or 0)
            assert counted == sum(lengths.values())

    @invariant()
    def every_end_is_counted_once(self) -> None:
        counts: Counter[str] = Counter()
        for outcome, count in self.store.client.hgetall(self.store.key("ended")).items():
            counts[outcome.split("|")[0]] += int(count)
        ended = [known.status for known in self.known.values() if known.status.is_terminal]
        assert counts == Counter(map(str, ended))

    @invariant()
    def what_is_owed_is_what_open_jobs_owe(self) -> None:
        owed = [self.store.client.hget(self.store.key("job", job_id), "owed_ms") for job_id in self.known]
        assert self.records.owed_s() * 1000 == sum(map(int, owed))
        for ms, known in zip(owed, self.known.values(), strict=True):
            assert not known.status.is_terminal or int(ms) == 0
        fresh = sum(AUDIO_S for known in self.known.values() if known.status is Status.QUEUED)
        assert int(self.store.client.hget(self.store.key("fresh"), MODEL) or 0) == fresh * 1000

    @invariant()
    def what_a_key_takes_is_what_its_jobs_take(self) -> None:
        for number, tenant in enumerate(TENANTS):
            own = list(self.known.items())[number :: len(TENANTS)]
            owed = [
                int(self.store.client.hget(self.store.key("job", job_id), "owed_ms"))
                for job_id, known in own
                if not known.status.is_terminal
            ]
            used = Used(len(owed), sum(owed) / 1000, len(own) * media().size_bytes)
            assert Usage(self.store).of(tenant) == used

    def left_ms(self, reference: str) -> int:
        step = self.store.key("step", *reference.split("/", 1))
        audio_ms, done_ms = self.store.client.hmget(step, "audio_ms", "done_ms")
        return max(1000, int(audio_ms or 0) - int(done_ms or 0))

    def lines(self, queue: str) -> list[str]:
        return [self.store.key("waiting", queue, name) for name in names(queue)]

    @invariant()
    def deliveries_under_way_are_counted(self) -> None:
        """By receiver and by standing, as many as are sent or held: none is set aside for ever."""
        counts = Counter(
            name
            for reference in self.store.client.zrange(self.store.key("busy", "deliver"), 0, -1)
            for name in self.store.client.hmget(
                self.store.key("step", *reference.split("/", 1)), "line", "class"
            )
        )
        flights = self.store.client.hgetall(self.store.key("flights"))
        assert {name: int(count) for name, count in flights.items()} == counts

    @invariant()
    def a_live_job_has_something_to_do(self) -> None:
        for known in self.known.values():
            assert known.status.is_terminal or known.steps - known.done

    @invariant()
    def an_outbox_row_means_an_ended_job(self) -> None:
        for job_id, known in self.known.items():
            has_row = bool(self.store.client.exists(self.store.key("step", job_id, "deliver-0")))
            assert has_row == (known.webhook and known.status.is_terminal)

    @invariant()
    def windows_count_once(self) -> None:
        for job_id, known in self.known.items():
            assert self.records.get(job_id).done_s == len(known.kept)

    def holds(self, claim: Claim) -> bool:
        known = self.known[claim.job_id]
        is_over = known.status.is_terminal and not claim.step.startswith("deliver")
        return known.holders.get(claim.step) == claim.attempt and not is_over

    def expect_fence(self, claim: Claim, act: object) -> bool:
        """Runs the act; it must be refused exactly when the claim is not the live one."""
        allowed = self.holds(claim)
        try:
            act()  # type: ignore[operator]
        except Fenced:
            assert not allowed
            return False
        except StoreUnavailable as error:
            raise AssertionError("parts that were offered are not known") from error
        assert allowed
        return True

    def finish_step(self, claim: Claim) -> None:
        known = self.known[claim.job_id]
        del known.holders[claim.step]
        known.done.add(claim.step)
        parts = {step for step in known.steps if step.startswith("part")}
        if "prepare" in known.done and parts <= known.done and not claim.step.startswith("deliver"):
            known.steps.add("finish")

    def end_known(self, known: Known, status: Status) -> None:
        assert status in TRANSITIONS[known.status]
        known.status = status
        known.done |= known.steps
        known.holders.clear()
        if known.webhook:
            known.steps.add("deliver-0")

    def sweep(self) -> None:
        for queue in QUEUES:
            self.ledger.sweep(queue)


def names(queue: str) -> list[str]:
    """Of the lines of a queue: each tenant's, or its receiver's."""
    if queue != "deliver":
        return list(TENANTS)
    return [f"{tenant}|{hashlib.sha1(b'example.org').hexdigest()}" for tenant in TENANTS]


def play(store: RedisStore, examples: int, *, is_mutant: bool = False) -> None:
    """Raises when a story breaks a law. Of a mutant nobody wants the shortest such story."""
    machine = type("LedgerLawsHere", (LedgerLaws,), {"store": store})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            database=None,
            phases=(Phase.generate,) if is_mutant else tuple(Phase),
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_the_laws_hold(store: RedisStore) -> None:
    play(store, examples=100)
