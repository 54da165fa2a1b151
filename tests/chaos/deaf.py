"""`python -m tests.chaos.deaf --rounds 50`: Redis is killed three times in three seconds; who still listens?

Workers of Celery are known to live on and fetch no more when their Redis comes back. Ours must go on, or exit
so that whoever watches over it starts another one.
"""

import argparse
import random
import secrets
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from shared.job import Status, VadOptions
from shared.redis_store import RedisStore, connect
from tests.chaos.scene import encoded, has_ended, impatient, noise, say
from tests.support.redis_server import RedisServer, find_binary, running
from tests.support.service import Service
from tests.support.waiting import PAUSE_S
from tests.support.worker_process import PLAIN, WorkerProcess

PATIENCE_S = 60.0
_BOUNCES = 3
_WITHIN_S = 3.0
_PATIENT_RETRIES = 12


@dataclass(frozen=True, slots=True)
class Report:
    """`waits_s`: until a round's jobs were completed; `exits`: statuses of workers that ended and were
    started again; `deaf`: jobs that nobody had completed in time."""

    seed: int
    rounds: int
    waits_s: tuple[float, ...]
    exits: tuple[int, ...]
    deaf: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"seed {self.seed}: {self.rounds} rounds of {_BOUNCES} bounces: {len(self.waits_s)} resumed, "
            f"{len(self.deaf)} jobs not done within {PATIENCE_S:g} s, workers that exited meanwhile: "
            f"{list(self.exits)}; slowest {max(self.waits_s, default=0):.1f} s"
        )


class Watched:
    """A worker, started again when it ends: the harness is its supervisor."""

    def __init__(self, service: Service, log: Path) -> None:
        self.exits: list[int] = []
        self._service = service
        self._log = log
        self._process = self._start()

    def look(self) -> None:
        if has_ended(self._process.pid):
            self.exits.append(self._process.stop())
            self._process = self._start()

    def close(self) -> None:
        self._process.close()

    def _start(self) -> WorkerProcess:
        process = WorkerProcess(self._service.settings, self._service.fleet, self._log, PLAIN)
        try:
            process.wait_ready()
        except BaseException:
            process.close()
            raise
        return process


def run(folder: Path, binary: Path, rounds: int, seed: int) -> Report:
    dice = random.Random(seed)
    waits: list[float] = []
    deaf: list[str] = []
    with ExitStack() as stack:
        redis = stack.enter_context(running(binary, "--appendonly", "yes"))
        client = stack.enter_context(connect(redis.url, retries=_PATIENT_RETRIES))
        service = Service(impatient(redis.url, folder), RedisStore(client))
        worker = Watched(service, folder / "worker.log")
        stack.callback(worker.close)
        for number in range(rounds):
            # One is being worked on when it happens, one comes afterwards.
            job_ids = [_submit(service, folder, 2 * number)]
            _bounce(redis, dice)
            job_ids.append(_submit(service, folder, 2 * number + 1))
            wait_s = _wait(service, worker, job_ids)
            if wait_s is None:
                deaf += [job_id for job_id in job_ids if not _is_completed(service, job_id)]
            else:
                waits.append(wait_s)
            say(f"{number + 1}/{rounds}: {'deaf' if wait_s is None else f'{wait_s:.1f} s'}")
        return Report(seed, rounds, tuple(waits), tuple(worker.exits), tuple(deaf))


def _bounce(redis: RedisServer, dice: random.Random) -> None:
    """The pauses are the fault itself, not a wait: each finds the worker at another point of its recovery."""
    ends = time.monotonic() + _WITHIN_S
    for left in range(_BOUNCES, 0, -1):
        redis.kill()
        time.sleep(dice.uniform(0, 0.3))
        redis.start()
        time.sleep(max(0.0, min(dice.uniform(0, 1), (ends - time.monotonic()) / left)))


def _submit(service: Service, folder: Path, number: int) -> str:
    path = folder / "sound.wav"
    path.write_bytes(encoded(noise(1.0 + number % 3, seed=number)))
    return service.submit(path, vad=VadOptions(enabled=False))


def _is_completed(service: Service, job_id: str) -> bool:
    return service.jobs.get(job_id).status is Status.COMPLETED


def _wait(service: Service, worker: Watched, job_ids: Sequence[str]) -> float | None:
    """Seconds until the jobs are completed; None when they are not, in time."""
    began = time.monotonic()
    while time.monotonic() < began + PATIENCE_S:
        worker.look()
        if all(_is_completed(service, job_id) for job_id in job_ids):
            return time.monotonic() - began
        time.sleep(PAUSE_S)
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**31))
    given = parser.parse_args()
    binary = find_binary()
    if binary is None:
        sys.exit("no redis-server or valkey-server is installed")
    with tempfile.TemporaryDirectory(prefix="ananse-deaf-") as name:
        report = run(Path(name), binary, given.rounds, given.seed)
    say(report)
    sys.exit(bool(report.deaf))


if __name__ == "__main__":
    main()
