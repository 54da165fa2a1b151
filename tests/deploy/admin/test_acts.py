"""`ananse admin` on a real Redis: what it shows, what it does, and what it says when it cannot."""

import json
import sys
from dataclasses import replace

import pytest

from deploy.admin.workers import condition
from shared import job_files
from shared.blob_store import BlobStore
from shared.fleet import Fleet, WorkerState
from shared.job import Failure, Status
from shared.job_store import JobStore
from shared.ledger import PREPARE, PREPARE_QUEUE, Fenced, Ledger, part_step
from shared.models import long_queue_of, queue_of
from shared.redis_store import RedisStore
from shared.task_queue import RedisMessages
from tests.deploy.admin.conftest import Admin
from tests.support.jobs import submit
from tests.support.worker_hand import MODEL, WORKER, WorkerHand, window

pytestmark = pytest.mark.redis


@pytest.fixture
def fleet(store: RedisStore) -> Fleet:
    return Fleet(store)


@pytest.fixture
def hand(ledger: Ledger, fleet: Fleet, blobs: BlobStore) -> WorkerHand:
    return WorkerHand(ledger, fleet, blobs)


def in_broker(store: RedisStore, queue: str = PREPARE_QUEUE) -> int:
    return RedisMessages(store).waiting([queue])


def test_queues_tell_what_waits_and_how_long_it_will_take(
    admin: Admin, hand: WorkerHand, ledger: Ledger, store: RedisStore
) -> None:
    hand.come_up()
    for number, client in enumerate(("ama", "kofi", "kofi", "kofi")):
        submit(store, f"job_{number}", tenant=client, model=MODEL, audio_s=100)
    ledger.try_again(ledger.claim("job_1", PREPARE, WORKER), delay_s=60)
    hand.begin("job_2")
    ledger.dispatch(PREPARE_QUEUE, 2, hint_s=20)

    told = json.loads(admin("queues", "--json").out)

    (model,) = told["models"]
    assert model == {
        "name": MODEL,
        "owed_s": 400.0,
        "workers": 1,
        "slots": 4,
        "speed": 12.5,
        "drains_in_s": 32.0,
        "paused": False,
    }
    (queue,) = told["queues"]
    assert (queue["waiting"], queue["put_off"], queue["sent"], queue["held"]) == (1, 1, 1, 1)
    assert (queue["clients"], queue["waiting_audio_s"], queue["slots"]) == (1, 100.0, 2)
    assert 0 <= queue["oldest_s"] < 60

    text = admin("queues").out
    assert "6 min 40 s" in text
    assert "12 x" in text
    assert "32 s" in text


def test_queues_of_a_service_that_was_never_used_are_none(admin: Admin) -> None:
    assert json.loads(admin("queues", "--json").out) == {"models": [], "queues": []}
    assert admin("queues").status == 0


def test_workers_tell_what_they_are_and_do(admin: Admin, hand: WorkerHand, fleet: Fleet) -> None:
    hand.come_up()
    (worker,) = fleet.live()
    fleet.beat(
        replace(worker, host="box", pid=7, busy=3, rss_bytes=3 * 2**29, started_at=1.0, guards=("a", "b"))
    )

    (row,) = json.loads(admin("workers", "--json").out)
    assert (row["name"], row["busy"], row["state"]) == (WORKER, 3, "working")

    text = admin("workers").out
    for cell in (WORKER, "box", "cpu", MODEL, "3/8", "12 x", "1.5 GiB", "2/4", "working"):
        assert cell in text


@pytest.mark.parametrize(
    ("busy", "draining", "said"),
    [(0, False, "idle"), (2, False, "working"), (2, True, "draining"), (0, True, "drained")],
)
def test_a_worker_s_condition_is_one_word(busy: int, draining: bool, said: str) -> None:
    assert condition(WorkerState("w", (), {}, busy=busy, draining=draining)) == said


def test_drain_chooses_by_name_by_host_or_all(admin: Admin, fleet: Fleet) -> None:
    workers = [WorkerState(f"w-{n}", (), {}, host="a" if n < 2 else "b") for n in range(4)]

    def told() -> list[str]:
        return [worker.name for worker in workers if fleet.beat(worker).drains]

    assert told() == []
    assert admin("drain", "w-0").status == 0
    assert told() == ["w-0"]
    admin("drain", "--host", "b")
    assert told() == ["w-0", "w-2", "w-3"]
    admin("undrain", "w-0", "--host", "b")
    assert told() == []
    admin("drain", "--all")
    assert told() == ["w-0", "w-1", "w-2", "w-3"]


def test_drain_of_somebody_unknown_drains_nobody(admin: Admin, fleet: Fleet) -> None:
    fleet.beat(WorkerState("w-1", (), {}, host="a"))

    said = admin("drain", "w-1", "w-9")

    assert (said.status, said.err) == (1, "ananse: not alive: w-9; alive: w-1 on a\n")
    assert not fleet.beat(WorkerState("w-1", (), {})).drains
    assert admin("drain").status == 1
    assert "nobody" not in said.err


def test_drain_waits_no_longer_than_it_was_told(admin: Admin, fleet: Fleet) -> None:
    fleet.beat(WorkerState("w-1", (), {}, busy=2, draining=True))

    said = admin("drain", "w-1", "--wait", "--timeout", "0.1")

    assert (said.status, said.err) == (3, "ananse: still at work after 0.1 s: w-1\n")

    fleet.beat(WorkerState("w-1", (), {}, busy=0, draining=True))
    assert admin("drain", "w-1", "--wait", "--timeout", "0.1").status == 0


def test_job_tells_all_but_what_was_said(
    admin: Admin, hand: WorkerHand, store: RedisStore, blobs: BlobStore
) -> None:
    secret = {"webhook_auth_header_name": "X-Key", "webhook_auth_header_value": "sesame"}
    submit(store, "job_1", model=MODEL, prompt="hush hush", **secret)
    blobs.write(job_files.media("job_1"), b"sound")
    (part,) = hand.cut(hand.begin("job_1"))
    hand.keep(part, window(0, 0.0, 4.0, "Nobody is to read this."))

    shown, row = admin("job", "job_1").out, admin("job", "job_1", "--json").out

    told = json.loads(row)
    assert [(one["step"], one["place"]) for one in told["steps"]] == [("prepare", "done"), ("part-0", "held")]
    held = told["steps"][1]
    assert (held["worker"], held["attempt"], held["windows"], held["done_s"]) == (WORKER, 1, 1, 4.0)
    assert 0 < held["lease_left_s"] <= 30
    assert told["blobs"]["files"] == {"media": 5}
    assert told["job"]["status"] == "running"
    assert [one["kind"] for one in told["events"]] == ["state", "state", "window", "progress"]
    for text in (shown, row):
        assert "part-0" in text
        for hidden in ("Nobody is to read this.", "sesame", "hush hush"):
            assert hidden not in text

    assert "Nobody is to read this." in admin("job", "job_1", "--text").out


def test_job_tells_why_it_failed_and_where_it_waits(
    admin: Admin, hand: WorkerHand, store: RedisStore
) -> None:
    submit(store, "job_1", model=MODEL)
    submit(store, "job_2", model=MODEL)
    (step,) = json.loads(admin("job", "job_2", "--json").out)["steps"]
    assert (step["place"], step["position"], step["worker"]) == ("waiting", 2, None)

    hand.fail("job_1", Failure("corrupt_audio", "It is noise.", False))

    assert "corrupt_audio: It is noise." in admin("job", "job_1").out


def test_a_job_that_is_not_there_is_one_sentence(admin: Admin) -> None:
    said = admin("job", "job_9")

    assert (said.status, said.out, said.err) == (1, "", "ananse: There is no such job.\n")


def test_requeue_takes_what_is_held_and_tells_the_others_twice(
    admin: Admin, hand: WorkerHand, ledger: Ledger, store: RedisStore
) -> None:
    hand.come_up()
    submit(store, "job_1", model=MODEL)
    claim = hand.begin("job_1")

    said = admin("requeue", "job_1")

    assert said.status == 0
    assert said.out == "job_1 prepare: back in line; whoever held it is refused from now on\n"
    assert in_broker(store) == 2
    with pytest.raises(Fenced):
        ledger.beat(claim)


def test_requeue_of_one_step_leaves_the_others(
    admin: Admin, hand: WorkerHand, ledger: Ledger, store: RedisStore
) -> None:
    hand.come_up()
    submit(store, "job_1", model=MODEL)
    first, second = hand.cut(hand.begin("job_1"), parts=2)

    admin("requeue", "job_1", part_step(1))

    ledger.beat(first)
    with pytest.raises(Fenced):
        ledger.beat(second)


def test_requeue_of_a_worker_takes_all_that_it_holds(
    admin: Admin, hand: WorkerHand, ledger: Ledger, store: RedisStore
) -> None:
    hand.come_up()
    for number in range(3):
        submit(store, f"job_{number}", model=MODEL)
    dead = [ledger.claim(f"job_{number}", PREPARE, "dead") for number in range(2)]
    alive = hand.begin("job_2")

    said = admin("requeue", "--worker", "dead")

    assert said.out.count("back in line") == 2
    for claim in dead:
        with pytest.raises(Fenced):
            ledger.beat(claim)
    ledger.beat(alive)
    assert admin("requeue", "--worker", "dead").out == "nothing to take back\n"


def test_messages_that_a_worker_took_with_it_are_sent_again(
    admin: Admin, hand: WorkerHand, ledger: Ledger, store: RedisStore
) -> None:
    hand.come_up()
    submit(store, "job_1", model=MODEL)
    ledger.dispatch(PREPARE_QUEUE, 1, hint_s=3600)
    assert in_broker(store) == 0

    admin("requeue", "--worker", "dead")

    assert in_broker(store) == 2


def test_requeue_of_an_ended_job_says_what_to_do_and_does_it(
    admin: Admin, hand: WorkerHand, jobs: JobStore, blobs: BlobStore, store: RedisStore
) -> None:
    submit(store, "job_1", model=MODEL)
    blobs.write(job_files.media("job_1"), b"sound")
    hand.fail("job_1", Failure("decoder_crashed", "It crashed.", True))

    said = admin("requeue", "job_1")
    assert said.status == 1
    assert said.err.endswith(
        "has ended as failed; `ananse admin requeue job_1 --retry` makes a new job of it\n"
    )

    again = admin("requeue", "job_1", "--retry")
    assert again.status == 0, again.err
    new = jobs.get(again.out.split()[-1])
    assert (new.status, new.retry_of, new.options.model) == (Status.QUEUED, "job_1", MODEL)
    assert blobs.read(job_files.media(new.id)) == b"sound"
    assert jobs.get("job_1").status is Status.FAILED


def test_retry_where_there_is_no_api_is_one_sentence(
    admin: Admin, hand: WorkerHand, store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(store, "job_1", model=MODEL)
    hand.fail("job_1", Failure("decoder_crashed", "It crashed.", True))
    monkeypatch.setitem(sys.modules, "api.app", None)

    said = admin("requeue", "job_1", "--retry")

    assert (said.status, said.err) == (1, "ananse: the API is not installed here; run --retry beside it\n")


def test_requeue_of_what_is_not_there_fails(admin: Admin, store: RedisStore) -> None:
    submit(store, "job_1", model=MODEL)

    assert admin("requeue", "job_1", "part-7").status == 1
    assert admin("requeue", "job_9").status == 1
    assert admin("requeue").status == 1
    assert admin("requeue", "job_1", "--worker", "w").status == 1
    assert admin("requeue", "job_1").out == "nothing to take back\n"


def test_cancel_ends_the_jobs_of_any_client(admin: Admin, jobs: JobStore, store: RedisStore) -> None:
    submit(store, "job_1", tenant="ama")
    submit(store, "job_2", tenant="kofi")

    said = admin("cancel", "job_1", "job_9", "job_2", "job_1")

    assert said.status == 1
    assert said.out.splitlines() == [
        "job_1: canceled",
        "job_9: there is no such job",
        "job_2: canceled",
        "job_1: had ended as canceled",
    ]
    assert jobs.get("job_2").status is Status.CANCELED


def test_pause_holds_a_model_s_queues_and_resume_sends_at_once(
    admin: Admin, hand: WorkerHand, ledger: Ledger, store: RedisStore
) -> None:
    hand.come_up()
    submit(store, "job_1", model=MODEL)
    prepare = hand.begin("job_1")
    ledger.offer_part(prepare, 0, MODEL, "{}", 10.0)

    assert admin("pause", MODEL).out == f"paused: {MODEL}\n"

    assert ledger.paused() == {queue_of(MODEL), long_queue_of(MODEL)}
    assert ledger.dispatch(queue_of(MODEL), 4, hint_s=20) == ()
    assert "paused" in admin("queues").out
    admin("resume", MODEL)
    assert in_broker(store, queue_of(MODEL)) == 2
    assert "paused" not in admin("queues").out


def test_everything_is_paused_and_resumed_as_one(
    admin: Admin, hand: WorkerHand, ledger: Ledger, store: RedisStore
) -> None:
    hand.come_up()
    submit(store, "job_1", model=MODEL)
    admin("pause", "--all")
    assert ledger.dispatch(PREPARE_QUEUE, 4, hint_s=20) == ()

    refused = admin("resume", MODEL)
    assert (refused.status, in_broker(store)) == (1, 0)
    assert "resume --all" in refused.err

    assert admin("resume", "--all").status == 0
    assert (ledger.paused(), in_broker(store)) == (frozenset(), 2)


def test_pause_of_a_model_that_nobody_knows_is_refused(admin: Admin, ledger: Ledger) -> None:
    said = admin("pause", "whispr")

    assert (said.status, ledger.paused()) == (1, frozenset())
    assert said.err == "ananse: no such model: whispr; there are: synthetic-en\n"
    assert admin("pause").status == 1
