"""The API killed, cut from Redis and asked twice: what it accepted is kept once, what it did not accept
leaves nothing that would ever count."""

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import httpx
import pytest

from tests.chaos.api_process import ApiProcess
from tests.chaos.failing_api import NOW_HEADER
from tests.chaos.scene import say
from tests.chaos.under_fire import (
    JOBS,
    UnderFire,
    begun_upload,
    ended,
    http,
    keyed,
    listed,
    sound,
    submit,
)
from tests.support.waiting import wait_until
from worker.sweeper import INCOMING_S

pytestmark = [pytest.mark.redis, pytest.mark.service, pytest.mark.slow]

SEED = 19
FROZEN_S = 10.0
LONGEST_ANSWER_S = 6.0
"""Five seconds are promised; one more for a machine that has other things to do."""


def test_an_upload_that_the_api_did_not_survive_leaves_nothing(fire: UnderFire) -> None:
    """Row 1: killed at a random byte, in all its processes or in the one that serves."""
    say(f"seed {SEED}")
    chance = random.Random(SEED)
    with fire.api() as api:
        for number in range(20):
            upload = begun_upload(fire, api, chance)
            if number % 5:
                api.kill_worker()
            else:
                api.kill()
                api.start()
            upload.close()
        api.wait_live()
        with http(api) as client:
            assert listed(client) == []
        left = fire.files()
        assert not any(name.startswith("jobs/") for name in left), left
        assert len(fire.uploads()) >= 3, left

        make_old(fire)
        with fire.worker(), http(api) as client:
            wait_until(lambda: fire.files() == {}, 30)
            assert listed(client) == []


def make_old(fire: UnderFire) -> None:
    then = time.time() - 2 * INCOMING_S
    for path in sorted(fire.root.rglob("*"), reverse=True):
        os.utime(path, (then, then))


def test_a_job_whose_hint_was_never_sent_is_run(fire: UnderFire) -> None:
    """Row 2: the API dies between record and hint, so that nobody is told, not even the client."""
    tags: list[str] = []
    # A hint that went nowhere takes a slot until it lapses.
    worker = fire.worker(ANANSE_PREPARE_SLOTS="32")
    with worker, fire.api("tests.chaos.failing_api:dies_before_hint()") as api:
        # A look of the sweeper may be quicker than the API, which has nothing to send then, and lives.
        for number in range(20):
            with http(api) as client, suppress(httpx.TransportError):
                submit(client, sound(number, 0.3), tag=f"before-hint-{number}")
                continue
            tags.append(f"before-hint-{number}")
            api.wait_live()
            if len(tags) == 10:
                break
        assert len(tags) == 10
        with http(api) as client:
            for tag in tags:
                (job,) = listed(client, tag=tag)
                assert ended(client, job["id"], 35)["status"] == "completed"


def test_who_was_not_answered_asks_again_and_gets_the_same_job(fire: UnderFire) -> None:
    """Row 3: the API dies after the commit, before the 202."""
    with fire.worker(), fire.api("tests.chaos.failing_api:dies_before_answer()") as api:
        for number in range(10):
            key, content = f"key-{number}", sound(number, 0.3)
            with http(api) as client, pytest.raises(httpx.TransportError):
                submit(client, content, keyed(key) | {NOW_HEADER: "1"}, tag=key)
            api.wait_live()
            with http(api) as client:
                answer = submit(client, content, keyed(key), tag=key)
                assert answer.status_code == 202, answer.text
                assert answer.headers["Idempotent-Replayed"] == "true"
                assert [job["id"] for job in listed(client, tag=key)] == [answer.json()["id"]]
                assert ended(client, answer.json()["id"])["status"] == "completed"


@dataclass(frozen=True, slots=True)
class Answer:
    """`began_at` and `ended_at` are on the clock of `time.monotonic`."""

    method: str
    status: int
    retry_after: str | None
    began_at: float
    ended_at: float

    @property
    def took_s(self) -> float:
        return self.ended_at - self.began_at


def test_a_frozen_redis_is_told_of_at_once_and_forgotten_at_once(fire: UnderFire) -> None:
    """Row 5: twenty clients read and submit all the while."""
    answers: list[Answer] = []
    done = threading.Event()
    with fire.api() as api, http(api) as client, ThreadPoolExecutor(20) as threads:
        path = f"{JOBS}/{submit(client, sound(0, 0.1)).json()['id']}"
        for number in range(20):
            threads.submit(ask_on, api, path, number, answers, done)
        try:
            for _ in range(2):
                seen = len(answers)
                wait_until(lambda seen=seen: len(answers) > seen + 20)  # type: ignore[misc]
                with frozen(fire) as since:
                    time.sleep(FROZEN_S)
                    # Of a busy machine, however long it takes to hear so many.
                    wait_until(lambda since=since: heard(answers, since) >= 20, 30)  # type: ignore[misc]
                thawed = time.monotonic()
                meanwhile = [one for one in answers if one.began_at > since and one.ended_at < thawed]
                assert {one.status for one in meanwhile} == {503}, Counter(meanwhile)
                wait_until(lambda thawed=thawed: is_normal(answers, thawed), 10)  # type: ignore[misc]
        finally:
            done.set()
    slowest = max(answers, key=lambda one: one.took_s)
    say(
        f"{len(answers)} answers, the slowest in {slowest.took_s:.2f} s, {Counter(o.status for o in answers)}"
    )
    assert slowest.took_s <= LONGEST_ANSWER_S, slowest
    assert {one.status for one in answers} == {200, 202, 503}
    assert all(one.retry_after for one in answers if one.status == 503)


def heard(answers: list[Answer], since: float) -> int:
    """Answers to what was asked after `since`."""
    return sum(one.began_at > since for one in answers)


def ask_on(api: ApiProcess, path: str, number: int, answers: list[Answer], done: threading.Event) -> None:
    """One client: reads its job, waits for it, lists, submits."""
    asked = (("GET", path), ("GET", JOBS), ("POST", JOBS), ("GET", f"{path}?wait=1"))
    with http(api, 60) as client:
        while not done.wait(0.1):
            method, target = asked[number % len(asked)]
            body = sound(number, 0.1) if method == "POST" else None
            began = time.monotonic()
            answer = client.request(method, target, content=body, headers={"Content-Type": "audio/wav"})
            answers.append(
                Answer(
                    f"{method} {target}",
                    answer.status_code,
                    answer.headers.get("Retry-After"),
                    began,
                    time.monotonic(),
                )
            )
            number += 1


def is_normal(answers: list[Answer], since: float) -> bool:
    """Nobody is refused any more: twenty answers in a row, to reads and submissions."""
    last = [one for one in answers if one.began_at > since][-20:]
    return len(last) == 20 and {one.status for one in last} == {200, 202}


@contextmanager
def frozen(fire: UnderFire) -> Iterator[float]:
    """Redis stands still within; since when."""
    with thawed_after(fire) as redis:
        os.kill(redis, signal.SIGSTOP)
        yield time.monotonic()


@contextmanager
def thawed_after(fire: UnderFire) -> Iterator[int]:
    """Whoever froze it, Redis goes on behind this; its pid."""
    redis = int(fire.store.client.info("server")["process_id"])
    try:
        yield redis
    finally:
        os.kill(redis, signal.SIGCONT)


@pytest.mark.parametrize(
    ("app", "statuses"), [("freezes_before_record", {503}), ("freezes_before_hint", {202, 503})]
)
def test_a_submission_that_met_the_frozen_redis_can_be_repeated(
    fire: UnderFire, app: str, statuses: set[int]
) -> None:
    """Redis may do in the end what nobody waits for any more: a record that was answered with 503."""
    content, key = sound(1, 0.3), keyed("key")
    with fire.worker(), fire.api(f"tests.chaos.failing_api:{app}()") as api, http(api) as client:
        # Redis has to know the scripts, or it asks for them.
        first = ended(client, submit(client, sound(0, 0.3)).json()["id"])
        began = time.monotonic()
        with thawed_after(fire):
            refused = submit(client, content, key | {NOW_HEADER: "1"})
        assert refused.status_code in statuses, refused.text
        assert time.monotonic() - began <= LONGEST_ANSWER_S
        wait_until(lambda: client.get("/readyz").status_code == 200, 10)

        again = submit(client, content, key)

        assert again.status_code == 202, again.text
        job = ended(client, again.json()["id"])
        assert job["status"] == "completed", job["error"]
        jobs = {first["id"], job["id"]}
        assert {job["id"] for job in listed(client)} == jobs
        assert {name.split("/")[1] for name in fire.files()} == jobs


def test_one_job_per_idempotency_key_however_often_and_at_once_it_is_asked_for(fire: UnderFire) -> None:
    """Row 28: eight at once for each key, then another body."""
    with fire.api() as api, ThreadPoolExecutor(8) as threads, http(api) as client:
        for number in range(100):
            content, key = sound(number, 0.05), keyed(f"key-{number}")
            answers = list(threads.map(lambda _: submit(client, content, key), range(8)))  # noqa: B023
            assert {answer.status_code for answer in answers} == {202}
            assert len({answer.json()["id"] for answer in answers}) == 1
            assert Counter("Idempotent-Replayed" in answer.headers for answer in answers)[False] == 1
        jobs = {job["id"] for job in listed(client)}
        assert len(jobs) == 100
        assert {folder.name for folder in (fire.root / "jobs").iterdir()} == jobs

        others = threads.map(
            lambda number: submit(client, sound(number + 1, 0.05), keyed(f"key-{number}")), range(100)
        )
        assert Counter((answer.status_code, answer.json()["code"]) for answer in others) == {
            (409, "idempotency_mismatch"): 100
        }
        assert {job["id"] for job in listed(client)} == jobs
        assert {folder.name for folder in (fire.root / "jobs").iterdir()} == jobs


def test_of_two_bodies_at_once_under_one_key_one_wins(fire: UnderFire) -> None:
    with fire.api() as api, ThreadPoolExecutor(8) as threads, http(api) as client:
        for number in range(10):
            bodies = [sound(2 * number + side % 2, 0.05) for side in range(8)]
            answers = list(threads.map(lambda body: submit(client, body, keyed(f"key-{number}")), bodies))  # noqa: B023
            assert Counter(answer.status_code for answer in answers) == {202: 4, 409: 4}
            assert len({answer.json()["id"] for answer in answers if answer.status_code == 202}) == 1
            winners = [side % 2 for side, answer in enumerate(answers) if answer.status_code == 202]
            assert len(set(winners)) == 1
        assert len(listed(client)) == 10
        assert fire.files().keys().isdisjoint({"incoming"})
