"""What a key takes is counted in the act, exactly: by a story of Hypothesis' own, by many at once, and after
a crash."""

import json
import threading

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    rule,
    run_state_machine_as_test,
)

from shared import job_files
from shared.api_keys import Limits
from shared.blob_store import BlobStore
from shared.errors import LimitReached, TooManyJobs, TooMuchAudio, TooMuchStored, UploadTooLarge
from shared.job import Options, Status
from shared.job_store import JobStore, NewJob
from shared.ledger import PREPARE, Ledger
from shared.media import Media
from shared.outcomes import Outcomes
from shared.rebuild import Rebuild
from shared.redis_store import RedisStore, connect
from shared.usage import Usage, Used

pytestmark = pytest.mark.redis

KEYS = ("key-a", "key-b")
LIMITS = Limits(jobs=3, audio_s=100.0, stored_bytes=1000)
PLENTY = 1e9


def new(job_id: str, key_id: str = "key-a", *, audio_s: float = 10.0, size_bytes: int = 100) -> NewJob:
    media = Media("speech.wav", size_bytes, "0" * 64)
    return NewJob(job_id, "ama", Options(model="m"), media, audio_s=audio_s, key_id=key_id)


def create(store: RedisStore, one: NewJob, limits: Limits = LIMITS) -> None:
    JobStore(store).create(one, 0.0, PLENTY, limits)


@pytest.fixture
def usage(store: RedisStore) -> Usage:
    return Usage(store)


def test_nothing_is_counted_without_a_key(store: RedisStore, usage: Usage) -> None:
    for number in range(5):
        create(store, new(f"job_{number}", ""))

    assert usage.of("") == Used()


@pytest.mark.parametrize(
    ("one", "error"),
    [
        ({}, TooManyJobs),
        ({"audio_s": 70.1}, TooMuchAudio),
        ({"size_bytes": 701}, TooMuchStored),
    ],
)
def test_a_limit_is_met_exactly(
    store: RedisStore, usage: Usage, one: dict[str, float], error: type[LimitReached]
) -> None:
    limits = Limits(jobs=3 if error is TooManyJobs else 4, audio_s=100.0, stored_bytes=1000)
    for number in range(3):
        create(store, new(f"job_{number}"), limits)

    with pytest.raises(LimitReached) as refused:
        create(store, new("job_x", **one), limits)  # type: ignore[arg-type]

    assert type(refused.value) is error
    assert refused.value.retry_after_s
    assert usage.of("key-a") == Used(3, 30.0, 300)
    assert not store.client.exists(store.key("job", "job_x"))
    # Another key has its own.
    create(store, new("job_y", "key-b", **one), limits)  # type: ignore[arg-type]


def test_what_just_fits_is_taken(store: RedisStore, usage: Usage) -> None:
    create(store, new("job_0", audio_s=100.0, size_bytes=1000))

    assert usage.of("key-a") == Used(1, 100.0, 1000)


@pytest.mark.parametrize("one", [{"audio_s": 100.1}, {"size_bytes": 1001}])
def test_what_alone_is_too_much_is_never_promised_a_place(
    store: RedisStore, usage: Usage, one: dict[str, float]
) -> None:
    with pytest.raises(UploadTooLarge) as refused:
        create(store, new("job_0", **one))  # type: ignore[arg-type]

    assert not refused.value.retryable
    assert refused.value.retry_after_s is None
    assert "alone" in refused.value.detail
    assert usage.of("key-a") == Used()


def test_a_job_that_was_taken_is_known_again_above_the_limit(store: RedisStore) -> None:
    limits = Limits(jobs=1)
    first, _ = JobStore(store).create(_keyed("job_0"), 60.0, PLENTY, limits)

    again, is_new = JobStore(store).create(_keyed("job_1"), 60.0, PLENTY, limits)

    assert (again.id, is_new) == (first.id, False)


def _keyed(job_id: str) -> NewJob:
    media = Media("speech.wav", 1, "0" * 64)
    return NewJob(job_id, "ama", Options(model="m"), media, idempotency_key="k", key_id="key-a")


def test_many_at_once_get_no_more_than_there_is(store: RedisStore, redis_url: str, usage: Usage) -> None:
    """Forty clients for seven places, while others end theirs."""
    taken: list[str] = []
    begin = threading.Barrier(8)

    def ask(worker: int) -> None:
        with connect(redis_url) as client:
            mine = RedisStore(client)
            begin.wait()
            for number in range(5):
                job_id = f"job_{worker}_{number}"
                try:
                    create(mine, new(job_id), Limits(jobs=7))
                except TooManyJobs:
                    continue
                taken.append(job_id)
                if number % 2:
                    Ledger(mine).cancel(job_id, webhook=None, retention_s=60)
                    taken.remove(job_id)
                assert Usage(mine).of("key-a").jobs <= 7

    threads = [threading.Thread(target=ask, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert usage.of("key-a").jobs == len(taken) <= 7
    assert usage.of("key-a").audio_s == 10.0 * len(taken)


class UsageLaws(RuleBasedStateMachine):
    """Jobs of two keys come, get on, end, lose their recordings, expire and are deleted, in any order and
    again and again; a version that knows no keys has its hand in it. A dict knows what should be counted."""

    jobs = Bundle("jobs")
    store: RedisStore

    def __init__(self) -> None:
        super().__init__()
        self.store.client.flushdb()
        self.ledger, self.records, self.usage = Ledger(self.store), JobStore(self.store), Usage(self.store)
        self.made = 0
        self.held: dict[str, dict[str, tuple[int, int, bool]]] = {key: {} for key in KEYS}
        """Audio owed, bytes stored, is open: of each job of each key."""

    @rule(
        target=jobs,
        key=st.sampled_from(KEYS),
        audio_s=st.integers(0, 60),
        size_bytes=st.integers(0, 600),
    )
    def submit(self, key: str, audio_s: int, size_bytes: int) -> str:
        self.made += 1
        job_id = f"job_{self.made}"
        used = self.expected(key)
        fits = used.jobs < 3 and used.audio_s + audio_s <= 100 and used.stored_bytes + size_bytes <= 1000
        try:
            create(self.store, new(job_id, key, audio_s=audio_s, size_bytes=size_bytes))
        except LimitReached:
            assert not fits
            return job_id
        assert fits
        self.held[key][job_id] = (audio_s, size_bytes, True)
        return job_id

    @rule(job_id=jobs)
    def get_on(self, job_id: str) -> None:
        """It turns out to be longer than it seemed."""
        claim = self.ledger.claim(job_id, PREPARE, "worker")
        if claim.is_held:
            self.ledger.offer_part(claim, 0, "m", "{}", 50.0)
            key, (audio_s, size_bytes, is_open) = self.find(job_id)
            self.held[key][job_id] = (max(audio_s, 50), size_bytes, is_open)

    @rule(job_id=jobs)
    def end(self, job_id: str) -> None:
        self.ledger.cancel(job_id, webhook=None, retention_s=60)
        self.change(job_id, lambda one: (0, one[1], False))

    @rule(job_id=jobs)
    def lose_the_recording(self, job_id: str) -> None:
        key, one = self.find(job_id)
        if one is not None and not one[2]:
            self.store.run("recording_gone", job_id, 1)
            self.held[key][job_id] = (one[0], 0, one[2])

    @rule(job_id=jobs)
    def expire(self, job_id: str) -> None:
        self.records.expire(job_id, 60)
        self.change(job_id, lambda one: one if one[2] else (0, 0, False))

    @rule(job_id=jobs)
    def delete(self, job_id: str) -> None:
        self.records.delete(job_id)
        key, one = self.find(job_id)
        if one is not None:
            del self.held[key][job_id]

    @rule(job_id=consumes(jobs), how=st.sampled_from(["ends", "deletes", "expires"]))
    def a_version_without_keys(self, job_id: str, how: str) -> None:
        """Its scripts change the record and count nothing; it is put right before anybody looks."""
        key, one = self.find(job_id)
        if one is None:
            return
        if how == "deletes":
            self.store.client.delete(self.store.key("job", job_id))
            del self.held[key][job_id]
        elif how == "expires":
            self.store.client.hset(self.store.key("job", job_id), "status", "expired")
            self.held[key][job_id] = (0, 0, False)
        else:
            self.store.client.hset(self.store.key("job", job_id), mapping={"status": "failed", "owed_ms": 0})
            self.held[key][job_id] = (0, one[1], False)
        self.usage.recount()

    @rule()
    def recount(self) -> None:
        assert self.usage.recount() == 0

    @rule(key=st.sampled_from(KEYS), kind=st.sampled_from(["open", "stored"]))
    def spoil_a_sum(self, key: str, kind: str) -> None:
        self.store.client.hincrby(self.store.key("usage", key), kind, 7)
        assert self.usage.recount() == (key in self.store.client.smembers(self.store.key("holders")))
        if key not in self.store.client.smembers(self.store.key("holders")):
            self.store.client.delete(self.store.key("usage", key))

    @invariant()
    def all_is_counted(self) -> None:
        for key in KEYS:
            assert self.usage.of(key) == self.expected(key)

    def expected(self, key: str) -> Used:
        rows = self.held[key].values()
        return Used(
            sum(is_open for *_, is_open in rows),
            float(sum(audio_s for audio_s, _, is_open in rows if is_open)),
            sum(size_bytes for _, size_bytes, _ in rows),
        )

    def find(self, job_id: str) -> tuple[str, tuple[int, int, bool] | None]:
        for key in KEYS:
            if job_id in self.held[key]:
                return key, self.held[key][job_id]
        return "", None

    def change(self, job_id: str, how: object) -> None:
        key, one = self.find(job_id)
        if one is not None:
            self.held[key][job_id] = how(one)  # type: ignore[operator]


def test_the_laws_of_usage_hold(store: RedisStore) -> None:
    machine = type("UsageLawsHere", (UsageLaws,), {"store": store})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=60,
            stateful_step_count=30,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("is_recording_kept", [True, False])
def test_an_emptied_redis_counts_the_same_again(
    store: RedisStore, blobs: BlobStore, usage: Usage, is_recording_kept: bool
) -> None:
    jobs, outcomes = JobStore(store), Outcomes(store, blobs)
    for job_id in ("job_open", "job_ended"):
        one = new(job_id, size_bytes=5)
        blobs.write(job_files.media(job_id), b"sound")
        create(store, one)
        job_files.write_manifest(blobs, one)
    Ledger(store).close("job_ended", Status.FAILED, {}, webhook=None, retention_s=60)
    outcomes.save("job_ended")
    if not is_recording_kept:
        blobs.remove(job_files.media("job_ended"))
        jobs.put_off_expiry(jobs.get("job_ended"))
    before = usage.of("key-a")
    assert before == Used(1, 10.0, 10 if is_recording_kept else 5)

    store.client.flushdb()
    assert usage.of("key-a") == Used()
    Rebuild(store, jobs, blobs, 60.0).look()

    assert usage.of("key-a") == before
    assert usage.recount() == 0
    jobs.delete("job_open")
    jobs.delete("job_ended")
    assert usage.of("key-a") == Used()


def test_a_manifest_of_the_first_versions_has_no_key(store: RedisStore, blobs: BlobStore) -> None:
    one = new("job_1")
    job_files.write_manifest(blobs, one)
    written = json.loads(blobs.read(job_files.manifest("job_1")))
    assert written.pop("key_id") == "key-a"
    blobs.write(job_files.manifest("job_1"), json.dumps(written).encode())

    assert job_files.read_manifest(blobs, "job_1").key_id == ""
