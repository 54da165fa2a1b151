"""Workers whose clock is wrong: row 25 of the failure table."""

import os
import random
import time
from pathlib import Path

import pytest

from shared import job_files
from shared.redis_store import RedisStore
from shared.settings import Settings
from tests.chaos.crew import Crew, assert_all_right, crew, impatient, written_at
from tests.chaos.sounds import sounds
from tests.support.service import Service
from tests.support.waiting import wait_until
from tests.support.worker_process import WorkerProcess
from tests.worker.receiver import receiver
from worker.sweeper import INCOMING_S

pytestmark = [pytest.mark.redis, pytest.mark.service, pytest.mark.slow]

SEED = 2025


@pytest.fixture
def service(settings: Settings, store: RedisStore) -> Service:
    return Service(impatient(settings), store)


def test_a_wrong_clock_takes_no_step_from_its_worker(service: Service, tmp_path: Path) -> None:
    """Row 25: one worker an hour ahead, one an hour behind, one that knows the time."""
    chance = random.Random(SEED)
    recordings = sounds(tmp_path, [chance.uniform(2, 40) for _ in range(40)], SEED)
    with crew(service, tmp_path, pace=0.02) as workers:
        for shift in ("+1h", "-1h"):
            workers.hire(**skewed(shift))
        workers.hire()
        given = {workers.submit(one): one for one in recordings}
        jobs = workers.see_through(given)
        wrong_by_h = [wrong_by_s(workers, one) / 3600 for one in workers.workers]
        expired = [row for row in workers.log("steps_put_back") if row["leases_expired"]]
    assert wrong_by_h == pytest.approx([1, -1, 0], abs=0.1)
    assert_all_right(service, given, jobs)
    assert {job.attempt for job in jobs.values()} == {1}
    assert expired == []


def test_a_letter_from_a_worker_with_a_wrong_clock_bears_the_right_time(
    service: Service, tmp_path: Path
) -> None:
    """Row 25: receivers refuse signatures that are more than five minutes old."""
    (recording,) = sounds(tmp_path, [3], SEED)
    with receiver() as hook, crew(service, tmp_path) as workers:
        workers.hire(**skewed("-1h"))
        job_id = workers.submit(recording, webhook_url=hook.url())
        workers.see_through([job_id])
        wait_until(lambda: hook.requests, 30)
    lines = hook.requests[0].lower().split(b"\r\n")
    sent_at = next(int(line[18:]) for line in lines if line.startswith(b"webhook-timestamp:"))
    assert sent_at == pytest.approx(time.time(), abs=300)


def test_a_worker_ahead_of_time_takes_no_new_upload_for_an_old_one(service: Service, tmp_path: Path) -> None:
    """Row 25: what is on its way in stays; what was given up long ago goes."""
    long_ago = time.time() - 3 * INCOMING_S
    names = {name: [f"{name}-{number}" for number in range(5)] for name in ("fresh", "old")}
    for name in (*names["fresh"], *names["old"]):
        service.blobs.write(job_files.media(name), b"sound")
        (service.blobs.incoming / name).write_bytes(b"half of a sound")
    for name in names["old"]:
        for path in (service.blobs.incoming / name, folder_of(service, name)):
            os.utime(path, (long_ago, long_ago))
    with crew(service, tmp_path) as workers:
        workers.hire(**skewed("+1h"))
        wait_until(lambda: not {*names["old"]} & {*service.blobs.folders("jobs"), *incoming(service)}, 30)
        assert {*names["fresh"]} <= incoming(service)
        assert {*names["fresh"]} <= {*service.blobs.folders("jobs")}


def folder_of(service: Service, job_id: str) -> Path:
    return service.blobs.incoming.parent / job_files.folder(job_id)


def incoming(service: Service) -> set[str]:
    return {path.name for path in service.blobs.incoming.iterdir()}


def wrong_by_s(workers: Crew, worker: WorkerProcess) -> float:
    return written_at(workers.log("step_claimed", worker)[-1]) - time.time()


def skewed(shift: str) -> dict[str, str]:
    """The environment of a process whose clock is wrong. The files' server keeps its own, right, time."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not found:
        pytest.skip("libfaketime is not installed")
    return {
        "LD_PRELOAD": str(found[0]),
        "FAKETIME": shift,
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
    }
