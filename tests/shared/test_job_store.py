"""Records of jobs: made once, read by their tenant only, listed newest first, watched, and removed whole."""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from shared.errors import IdempotencyMismatch, NotFound
from shared.job import Delivery, Job, Options, Status
from shared.job_store import Ahead, Filters, JobStore, NewJob
from shared.ledger import PREPARE, Ledger, part_step
from shared.redis_store import RedisStore
from shared.transcript import WindowResult
from tests.support.jobs import NOW, media, submit
from tests.support.waiting import wait_until

pytestmark = pytest.mark.redis

HOOK = b'{"type":"job.canceled"}'
DAY_S = 86_400.0
PATIENCE_S = 10.0


def new(job_id: str = "job_1", tenant: str = "default", key: str = "", request: str = "") -> NewJob:
    return NewJob(
        job_id,
        tenant,
        Options(model="m"),
        media(),
        idempotency_key=key,
        request_hash=request,
        request_id="r1",
    )


def submit_at(store: RedisStore, milliseconds: dict[str, int], **options: object) -> None:
    """Jobs that were created at these instants."""
    for job_id, created_at in milliseconds.items():
        submit(store, job_id, **options)
        store.client.zadd(store.key("jobs", "default"), {job_id: created_at})


def pages(jobs: JobStore, limit: int) -> list[list[str]]:
    """Ids, page by page, as a client reads them."""
    found: list[list[str]] = []
    cursor = None
    while True:
        page = jobs.page("default", Filters(limit=limit, cursor=cursor))
        found.append([job.id for job in page.jobs])
        cursor = page.next_cursor
        if cursor is None:
            return found


def end(store: RedisStore, job_id: str) -> None:
    """The job leaves traces of every kind: windows, events, a webhook that arrived."""
    ledger = Ledger(store)
    prepare = ledger.claim(job_id, PREPARE, "w")
    ledger.offer_part(prepare, 0, "m", "{}", 10.0)
    part = ledger.claim(job_id, part_step(0), "w")
    ledger.checkpoint(part, WindowResult(0, 0.0, 1.0, ()), 1.0)
    assert ledger.cancel(job_id, webhook=HOOK, retention_s=DAY_S)
    delivery = ledger.claim(job_id, "deliver-0", "w")
    ledger.delivered(delivery, Delivery(1, NOW, 200, 0.1), "delivered")


def test_a_new_job_is_queued_and_reads_back_as_it_was_asked_for(jobs: JobStore) -> None:
    options = Options(model="m", language="en", metadata={"order": "7"}, tag="blue", priority=3)

    job, is_new = jobs.create(NewJob("job_1", "default", options, media(12), "req_1", retry_of="job_0"))

    assert is_new
    assert job == jobs.get("job_1", "default")
    assert (job.status, job.options, job.media) == (Status.QUEUED, options, media(12))
    assert (job.request_id, job.retry_of) == ("req_1", "job_0")
    assert abs((job.created_at - datetime.now(UTC)).total_seconds()) < 60


def test_a_job_is_found_by_its_tenant_only(jobs: JobStore) -> None:
    jobs.create(new("job_1", tenant="ama"))

    assert jobs.get("job_1", "ama").id == "job_1"
    with pytest.raises(NotFound) as foreign:
        jobs.get("job_1", "kofi")
    with pytest.raises(NotFound) as missing:
        jobs.get("job_2", "kofi")
    assert foreign.value.detail == missing.value.detail


def test_a_job_created_again_with_its_own_id_is_the_same_job(jobs: JobStore, ledger: Ledger) -> None:
    """The client of Redis may repeat a script whose answer was lost."""
    jobs.create(new())
    ledger.claim("job_1", PREPARE, "w")

    job, _ = jobs.create(new())

    assert job.status is Status.RUNNING


def test_an_idempotency_key_gives_the_job_it_made_first(jobs: JobStore, store: RedisStore) -> None:
    first, _ = jobs.create(new("job_1", key="k", request="same"), DAY_S)

    again, is_new = jobs.create(new("job_2", key="k", request="same"), DAY_S)

    assert (again, is_new) == (first, False)
    assert not store.client.exists(store.key("job", "job_2"))


def test_an_idempotency_key_is_not_for_another_request(jobs: JobStore) -> None:
    jobs.create(new("job_1", key="k", request="one"), DAY_S)

    with pytest.raises(IdempotencyMismatch):
        jobs.create(new("job_2", key="k", request="other"), DAY_S)
    with pytest.raises(NotFound):
        jobs.get("job_2")


def test_idempotency_keys_of_tenants_do_not_meet(jobs: JobStore) -> None:
    jobs.create(new("job_1", tenant="ama", key="k", request="one"), DAY_S)

    _, is_new = jobs.create(new("job_2", tenant="kofi", key="k", request="other"), DAY_S)

    assert is_new


def test_an_idempotency_key_is_forgotten_after_its_time(jobs: JobStore, store: RedisStore) -> None:
    jobs.create(new(key="k", request="one"), idempotency_s=100.0)

    key = store.key("idempotency", "default", "k")
    assert 90_000 < store.client.pttl(key) <= 100_000
    store.client.pexpire(key, 0)
    assert jobs.create(new("job_2", key="k", request="other"), 100.0)[1]


def test_jobs_are_listed_newest_first_and_only_their_tenant_s(jobs: JobStore, store: RedisStore) -> None:
    submit_at(store, {"job_a": 1000, "job_b": 3000, "job_c": 2000})
    jobs.create(new("job_d", tenant="kofi"))

    assert [job.id for job in jobs.page("default", Filters()).jobs] == ["job_b", "job_c", "job_a"]
    assert [job.id for job in jobs.page("kofi", Filters()).jobs] == ["job_d"]
    assert jobs.page("esi", Filters()).jobs == ()


def test_pages_follow_each_other_without_gap_or_repetition(jobs: JobStore, store: RedisStore) -> None:
    submit_at(
        store, {"job_a": 1000, "job_b": 1000, "job_c": 1000, "job_d": 1000, "job_e": 2000, "job_f": 500}
    )

    assert pages(jobs, limit=2) == [["job_e", "job_d"], ["job_c", "job_b"], ["job_a", "job_f"], []]


def test_however_many_jobs_one_millisecond_made_all_are_listed(jobs: JobStore, store: RedisStore) -> None:
    submit_at(store, {f"job_{number:03}": 1000 for number in range(450)})

    assert [job_id for page in pages(jobs, limit=150) for job_id in page] == [
        f"job_{number:03}" for number in reversed(range(450))
    ]


def test_a_job_that_comes_between_two_pages_moves_none(jobs: JobStore, store: RedisStore) -> None:
    submit_at(store, {"job_a": 1000, "job_b": 2000, "job_c": 3000})
    first = jobs.page("default", Filters(limit=2))

    submit_at(store, {"job_d": 4000})

    second = jobs.page("default", Filters(limit=2, cursor=first.next_cursor))
    assert [job.id for job in second.jobs] == ["job_a"]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (Filters(), ["job_c", "job_b", "job_a"]),
        (Filters(model="n"), ["job_b"]),
        (Filters(tag="blue"), ["job_c"]),
        (Filters(status=Status.RUNNING), ["job_a"]),
        (Filters(status=Status.QUEUED, tag="blue"), ["job_c"]),
        (Filters(status=Status.FAILED), []),
        (Filters(created_after=datetime.fromtimestamp(1, UTC)), ["job_c", "job_b"]),
        (Filters(created_after=datetime.fromtimestamp(3, UTC)), []),
        (Filters(limit=1), ["job_c"]),
    ],
)
def test_a_list_holds_what_its_filters_ask_for(
    jobs: JobStore, ledger: Ledger, store: RedisStore, filters: Filters, expected: list[str]
) -> None:
    submit_at(store, {"job_a": 1000})
    submit_at(store, {"job_b": 2000}, model="n")
    submit_at(store, {"job_c": 3000}, tag="blue")
    ledger.claim("job_a", PREPARE, "w")

    assert [job.id for job in jobs.page("default", filters).jobs] == expected


def test_files_and_audio_that_go_before_are_told(jobs: JobStore, ledger: Ledger, store: RedisStore) -> None:
    submit(store, "job_a", audio_s=30)
    submit(store, "job_b", audio_s=60, priority=5)
    assert [jobs.ahead(job_id) for job_id in ("job_b", "job_a")] == [Ahead(0, 0, 60), Ahead(1, 45, 30)]

    ledger.claim("job_b", PREPARE, "w")

    assert [jobs.ahead(job_id) for job_id in ("job_b", "job_a")] == [Ahead(0, 30, 60), Ahead(0, 60, 30)]
    assert jobs.owed_s() == 90


def test_others_get_their_fair_share_before_a_job(jobs: JobStore, store: RedisStore) -> None:
    for number in range(10):
        submit(store, f"job_a{number}", tenant="ama", audio_s=10)
    for number in range(3):
        submit(store, f"job_k{number}", tenant="kofi", audio_s=10)

    assert [jobs.ahead(f"job_k{number}").files for number in range(3)] == [1, 3, 5]
    assert [jobs.ahead(f"job_a{number}").files for number in range(5)] == [1, 3, 5, 6, 7]
    assert jobs.ahead("job_a9") == Ahead(12, 120, 10)


class Waiter:
    """`jobs.wait` in a thread of its own."""

    def __init__(self, store: RedisStore, wait: Callable[[], Job]) -> None:
        self._thread = threading.Thread(target=lambda: self.answers.append(wait()))
        self.answers: list[Job] = []
        before = self._blocked(store)
        self._thread.start()
        wait_until(lambda: self._blocked(store) > before)

    def answer(self) -> Job:
        self._thread.join(PATIENCE_S)
        return self.answers[0]

    @staticmethod
    def _blocked(store: RedisStore) -> int:
        return int(store.client.info("clients")["blocked_clients"])


def test_an_ended_job_is_not_waited_for(jobs: JobStore, store: RedisStore) -> None:
    submit(store)
    end(store, "job_1")
    began = time.monotonic()

    job = jobs.wait("job_1", "default", PATIENCE_S, until_end=True)

    assert job.status is Status.CANCELED
    assert time.monotonic() - began < PATIENCE_S / 2


def test_waiting_ends_with_a_change_of_state(jobs: JobStore, ledger: Ledger, store: RedisStore) -> None:
    submit(store)
    waiter = Waiter(store, lambda: jobs.wait("job_1", "default", PATIENCE_S))

    ledger.claim("job_1", PREPARE, "w")

    assert waiter.answer().status is Status.RUNNING


def test_waiting_for_the_end_sleeps_through_other_changes(
    jobs: JobStore, ledger: Ledger, store: RedisStore
) -> None:
    submit(store)
    waiter = Waiter(store, lambda: jobs.wait("job_1", "default", PATIENCE_S, until_end=True))

    ledger.claim("job_1", PREPARE, "w")
    ledger.cancel("job_1", webhook=None, retention_s=DAY_S)

    assert waiter.answer().status is Status.CANCELED


def test_waiting_in_vain_gives_the_job_as_it_is(jobs: JobStore, store: RedisStore) -> None:
    job = submit(store)

    assert jobs.wait("job_1", "default", 0.01) == job
    assert jobs.wait("job_1", "default", 0.0) == job


def test_a_foreign_job_cannot_be_waited_for(jobs: JobStore, store: RedisStore) -> None:
    submit(store)

    with pytest.raises(NotFound):
        jobs.wait("job_1", "kofi", PATIENCE_S)


def test_events_are_read_on_from_the_last_one_seen(jobs: JobStore, ledger: Ledger, store: RedisStore) -> None:
    submit(store)
    ledger.claim("job_1", PREPARE, "w")

    (queued, running) = jobs.events("job_1", "0", 0.01)

    assert [(event.kind, event.body) for event in (queued, running)] == [
        ("state", '{"status":"queued"}'),
        ("state", '{"status":"running"}'),
    ]
    assert jobs.events("job_1", queued.id, 0.01) == (running,)
    assert jobs.events("job_1", running.id, 0.01) == ()
    ledger.cancel("job_1", webhook=None, retention_s=DAY_S)
    assert [event.body for event in jobs.events("job_1", running.id, 0.01)] == ['{"status":"canceled"}']


def test_windows_of_unfinished_parts_can_be_read(jobs: JobStore, ledger: Ledger, store: RedisStore) -> None:
    submit(store)
    prepare = ledger.claim("job_1", PREPARE, "w")
    kept = [WindowResult(number, number * 10.0, number * 10.0 + 5, ()) for number in range(2)]
    for number, result in enumerate(kept):
        ledger.offer_part(prepare, number, "m", "{}", 5.0)
        ledger.checkpoint(ledger.claim("job_1", part_step(number), "w"), result, 5.0)

    assert jobs.windows("job_1") == tuple(kept)
    assert jobs.windows("job_2") == ()


def test_deliveries_are_kept_in_order_and_only_the_last_twenty(
    jobs: JobStore, ledger: Ledger, store: RedisStore
) -> None:
    submit(store)
    ledger.cancel("job_1", webhook=HOOK, retention_s=DAY_S)
    log = [Delivery(attempt, NOW, 500, 0.25, "timeout", "oops") for attempt in range(1, 23)]
    for delivery in log:
        ledger.redeliver(ledger.claim("job_1", "deliver-0", "w"), delivery, 0.0)

    assert jobs.deliveries("job_1") == tuple(log[-20:])
    assert jobs.get("job_1").webhook_status == "retrying"


def keys_of(store: RedisStore, job_id: str) -> set[str]:
    """Every key that is the job's own, without our prefix."""
    return {key.removeprefix(store.prefix) for key in store.client.scan_iter(f"*{job_id}*")}


def mentions(store: RedisStore, job_id: str) -> set[str]:
    """Every sorted set that still names the job."""
    return {
        key
        for key in store.client.scan_iter(_type="zset")
        if any(job_id in member for member in store.client.zrange(key, 0, -1))
    }


def test_an_expired_job_keeps_its_record_and_nothing_that_was_said(jobs: JobStore, store: RedisStore) -> None:
    submit(store)
    end(store, "job_1")

    jobs.expire("job_1", DAY_S)

    assert jobs.get("job_1").status is Status.EXPIRED
    assert not {key for key in keys_of(store, "job_1") if key.startswith("windows:")}
    assert [event.body for event in jobs.events("job_1", "0", 0.01)] == ['{"status":"expired"}']


def test_a_live_job_does_not_expire(jobs: JobStore, store: RedisStore) -> None:
    submit(store)

    jobs.expire("job_1", DAY_S)

    assert jobs.get("job_1").status is Status.QUEUED


def test_jobs_fall_due_for_expiry_after_their_retention(jobs: JobStore, store: RedisStore) -> None:
    submit(store)
    end(store, "job_1")
    assert jobs.due_for_expiry() == ()

    store.client.zadd(store.key("expiry"), {"job_1": 1})

    assert jobs.due_for_expiry() == ("job_1",)
    jobs.expire("job_1", DAY_S)
    assert jobs.due_for_expiry() == ()


@pytest.mark.parametrize("is_ended", [False, True])
def test_a_deleted_job_leaves_nothing(jobs: JobStore, store: RedisStore, is_ended: bool) -> None:
    submit(store)
    if is_ended:
        end(store, "job_1")

    assert jobs.delete("job_1")

    assert keys_of(store, "job_1") == set()
    assert mentions(store, "job_1") == set()
    assert not jobs.delete("job_1")
    with pytest.raises(NotFound):
        jobs.get("job_1")
