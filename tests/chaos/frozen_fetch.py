"""`python -m tests.chaos.frozen_fetch --tries 100`: a worker is frozen while it waits, and never wakes.

Redis hands the next message to the frozen client's pending BRPOP, and with its socket the message dies: it is
in no queue, and no worker ever noted it. One recipe for both sides: Celery that trusts its broker, and ours.
"""

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import psutil
from redis import Redis

from shared.job import Status, VadOptions
from shared.ledger import PREPARE_QUEUE
from shared.redis_store import RedisStore, connect
from tests.chaos import plain_celery
from tests.chaos.scene import encoded, impatient, noise, say
from tests.support.redis_server import find_binary, running
from tests.support.service import Service
from tests.support.waiting import wait_until
from tests.support.worker_process import PLAIN, ROOT, WorkerProcess

PATIENCE_S = 60.0
"""A job that has not ended so long after the restart counts as lost."""

_OURS = "ananse-celery:"


class Process(Protocol):
    """A worker of either side."""

    @property
    def pid(self) -> int: ...
    def signal(self, number: signal.Signals) -> None: ...
    def kill(self) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Side:
    """A way to get jobs done. `start` returns once the worker is up, `publish` gives the job's id; `prefix`
    and `queue` say under which keys the broker keeps messages. `patience_s` is how long a job is waited for
    after a later one has run."""

    broker: "Redis"
    prefix: str
    queue: str
    start: Callable[[], Process]
    publish: Callable[[], str]
    has_run: Callable[[str], bool]
    patience_s: float

    def messages(self) -> int:
        """In the queue, or taken and noted as such."""
        client: Any = self.broker
        return int(client.llen(self.prefix + self.queue)) + int(client.hlen(self.prefix + "unacked"))

    def is_asking(self) -> bool:
        """A worker's BRPOP is pending."""
        client: Any = self.broker
        return any(row["cmd"] == "brpop" and "b" in row["flags"] for row in client.client_list())


@dataclass(frozen=True, slots=True)
class Report:
    """`lost` holds the jobs that never ran, `left` how many messages the broker held after each try."""

    tries: int
    lost: tuple[str, ...]
    left: tuple[int, ...]
    slowest_s: float

    def __str__(self) -> str:
        ran = self.tries - len(self.lost)
        return f"{len(self.lost)} of {self.tries} lost, messages left in the broker: {sum(self.left)}" + (
            f", slowest of {ran} that ran: {self.slowest_s:.1f} s after the kill" if ran else ""
        )


@dataclass(frozen=True, slots=True)
class _Try:
    """`ran_s` is None for a job that never ran."""

    job: str
    left: int
    ran_s: float | None


def frozen_fetch(side: Side, tries: int) -> Report:
    """Repeats the recipe until Redis has handed `tries` messages to frozen workers.

    A BRPOP ends by itself once a second. One that ends between freezing and publishing leaves the message in
    the queue: that does not count as a try.
    """
    handed: list[_Try] = []
    worker = side.start()
    try:
        for _ in range(2 * tries + 10):
            if len(handed) == tries:
                break
            job, is_handed = _publish_to_frozen(side, worker)
            worker.kill()
            killed = time.monotonic()
            worker = side.start()
            ran_s = _ran_s(side, job, killed)
            if is_handed:
                handed.append(_Try(job, side.messages(), ran_s))
    finally:
        worker.close()
    assert len(handed) == tries, f"Redis handed over only {len(handed)} of {tries}"
    return Report(
        tries,
        tuple(one.job for one in handed if one.ran_s is None),
        tuple(one.left for one in handed),
        max((one.ran_s for one in handed if one.ran_s is not None), default=0.0),
    )


def _publish_to_frozen(side: Side, worker: Process) -> tuple[str, bool]:
    wait_until(lambda: side.is_asking() and side.messages() == 0, 30)
    worker.signal(signal.SIGSTOP)
    wait_until(lambda: psutil.Process(worker.pid).status() == psutil.STATUS_STOPPED)
    job = side.publish()
    return job, side.messages() == 0


def _ran_s(side: Side, job: str, since: float) -> float | None:
    witness = side.publish()
    # A side that runs nothing at all after its restart shows nothing.
    wait_until(lambda: side.has_run(witness), PATIENCE_S)
    try:
        wait_until(lambda: side.has_run(job), side.patience_s)
    except TimeoutError:
        return None
    return time.monotonic() - since


class _CeleryProcess:
    def __init__(self, redis_url: str, log: Path) -> None:
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", plain_celery.__name__, "--redis", redis_url],
                cwd=ROOT,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        if self._process.poll() is None:
            self.kill()


@contextmanager
def plain_side(redis_url: str, folder: Path) -> Iterator[Side]:
    """Celery with late ack. What is neither queued nor noted as taken cannot come back: that is soon seen."""
    app = plain_celery.make_app(redis_url)
    numbers = count()
    with Redis.from_url(redis_url, decode_responses=True) as client:
        broker: Any = client

        def start() -> Process:
            process = _CeleryProcess(redis_url, folder / "celery.log")
            try:
                wait_until(side.is_asking, 60)
            except BaseException:
                process.close()
                raise
            return process

        def publish() -> str:
            name = f"note-{next(numbers)}"
            app.send_task("plain.note", args=[name], ignore_result=True)
            return name

        side = Side(
            broker=client,
            prefix="",
            queue=plain_celery.QUEUE,
            start=start,
            publish=publish,
            has_run=lambda name: bool(broker.sismember(plain_celery.RAN, name)),
            patience_s=1.0,
        )
        try:
            yield side
        finally:
            app.close()


@contextmanager
def our_side(redis_url: str, folder: Path, hint_s: float = 1.0) -> Iterator[Side]:
    settings = impatient(redis_url, folder, hint_s=hint_s, lease_s=max(2.0, hint_s))
    numbers = count()
    with connect(redis_url) as client:
        service = Service(settings, RedisStore(client))

        def start() -> Process:
            process = WorkerProcess(settings, service.fleet, folder / "worker.log", PLAIN)
            try:
                process.wait_ready()
            except BaseException:
                process.close()
                raise
            return process

        def publish() -> str:
            number = next(numbers)
            path = folder / "sound.wav"
            # Never twice the same sound: no result may come from an earlier job.
            path.write_bytes(encoded(noise(1.0 + number % 3, seed=number)))
            return service.submit(path, vad=VadOptions(enabled=False))

        yield Side(
            broker=client,
            prefix=_OURS,
            queue=PREPARE_QUEUE,
            start=start,
            publish=publish,
            has_run=lambda job: service.jobs.get(job).status is Status.COMPLETED,
            patience_s=PATIENCE_S,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=100)
    parser.add_argument("--plain-tries", type=int, default=5)
    parser.add_argument("--hint-s", type=float, default=1.0, help="ours: seconds until a hint is sent again")
    given = parser.parse_args()
    binary = find_binary()
    if binary is None:
        sys.exit("no redis-server or valkey-server is installed")
    with tempfile.TemporaryDirectory(prefix="ananse-frozen-") as name:
        folder = Path(name)
        with running(binary, "--appendonly", "yes") as redis, plain_side(redis.url, folder) as side:
            say(f"plain Celery: {frozen_fetch(side, given.plain_tries)}")
        with (
            running(binary, "--appendonly", "yes") as redis,
            our_side(redis.url, folder, given.hint_s) as side,
        ):
            report = frozen_fetch(side, given.tries)
            say(f"ours: {report}")
    sys.exit(bool(report.lost))


if __name__ == "__main__":
    main()
