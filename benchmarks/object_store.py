"""`python -m benchmarks.object_store`: what a job costs in requests to an object store, counted by the store
itself, and how long submit and the whole job take on it and on a disk.

Real API, real worker process (its model spells what it hears), real SeaweedFS on this machine: a network
adds its own.
"""

import argparse
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx

from shared.redis_store import RedisStore, connect
from tests.chaos.scene import impatient
from tests.chaos.sounds import sound
from tests.support.api_server import api_server
from tests.support.object_store import object_store
from tests.support.redis_server import require_binary, running
from tests.support.service import Service
from tests.support.worker_process import PLAIN, worker_process

_PART_S = 30
_SETTLE_S = 1.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=20)
    given = parser.parse_args()
    with object_store() as objects:
        for name, where in (("disk", {}), ("objects", objects.settings())):
            count: Callable[[], Counter[str]] = objects.requests if where else Counter
            with tempfile.TemporaryDirectory() as folder:
                _measure(name, Path(folder), where, count, given.jobs)


def _measure(
    name: str, folder: Path, where: dict[str, object], count: Callable[[], Counter[str]], jobs: int
) -> None:
    """A few short jobs one after another, then one of ten parts."""
    with running(require_binary(), "--appendonly", "yes") as redis, connect(redis.url) as client:
        # The sweeper's look at orphans comes with the first job; until the next one it needs Redis only.
        settings = impatient(redis.url, folder, part_s=_PART_S, lease_s=30, sweep_s=1, **where)
        service = Service(settings, RedisStore(client))
        with (
            api_server(settings) as api,
            worker_process(settings, service.fleet, folder / "worker.log", PLAIN),
            httpx.Client(base_url=api.url, timeout=60) as http,
        ):
            _run(http, service, sound(folder / "warm.wav", 5, 999).path)
            time.sleep(_SETTLE_S)
            before = count()
            times = [_run(http, service, sound(folder / f"{n}.wav", 5, n).path) for n in range(jobs)]
            time.sleep(_SETTLE_S)
            short = count() - before
            long_s = _run(http, service, sound(folder / "long.wav", 10 * _PART_S, 998).path)
            time.sleep(_SETTLE_S)
            long = count() - before - short
    submits, wholes = zip(*times, strict=True)
    print(
        f"{name}: submit p50 {statistics.median(submits) * 1000:.0f} ms, job of 5 s p50 "
        f"{statistics.median(wholes) * 1000:.0f} ms, job of 10 parts {long_s[1]:.2f} s"
    )
    if short:
        print(f"  requests of a job of one part: {_shown(short, jobs)}; of ten parts: {_shown(long, 1)}")


def _run(http: httpx.Client, service: Service, path: Path) -> tuple[float, float]:
    """Seconds until 202 and until completed."""
    began = time.monotonic()
    answer = http.post(
        "/v1/jobs",
        params={"vad": "off", "reuse": "off"},
        content=path.read_bytes(),
        headers={"Content-Type": "audio/wav"},
    )
    answer.raise_for_status()
    accepted = time.monotonic() - began
    job = service.ended(answer.json()["id"])
    assert job.status == "completed", job.failure
    return accepted, time.monotonic() - began


def _shown(counts: Counter[str], jobs: int) -> str:
    kinds = ", ".join(f"{kind} {count / jobs:.1f}" for kind, count in sorted(counts.items()))
    return f"{counts.total() / jobs:.1f} ({kinds})"


if __name__ == "__main__":
    main()
