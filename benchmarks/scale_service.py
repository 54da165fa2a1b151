"""What real workers and a real broker ask of Redis: while they idle, and for each job."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from _pytest.outcomes import Skipped

from benchmarks.scale_ground import Figure, Meter, ground, say
from benchmarks.scale_queue import TUNED
from shared.job import VadOptions
from shared.settings import Settings
from tests.support.rabbitmq_server import rabbitmq
from tests.support.service import SAMPLES, Service
from tests.support.worker_process import PLAIN, worker_process


def brokers(jobs: int, seconds: float) -> Iterator[Figure]:
    """The job store as the broker, as by default; a second Redis; RabbitMQ, where it is installed."""
    for name in ("the same Redis", "a second Redis", "RabbitMQ"):
        say(f"service: hints through {name}")
        with ExitStack() as stack:
            here = stack.enter_context(ground(*TUNED))
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ananse-bench-")))
            meters = {"job store": here.store.client}
            places = {"redis_url": here.server.url, "blob_url": f"file://{folder}", "state_dir": folder}
            if name == "a second Redis":
                other = stack.enter_context(ground())
                places["broker_url"] = other.server.url
                meters["broker"] = other.store.client
            elif name == "RabbitMQ":
                try:
                    places["broker_url"] = stack.enter_context(rabbitmq()).url
                except Skipped as reason:
                    say(str(reason))
                    return
            service = Service(Settings(**places), here.store)
            yield from _figures(service, meters, name, jobs, seconds, folder)


def _figures(
    service: Service, clients: dict[str, object], broker: str, jobs: int, seconds: float, folder: Path
) -> Iterator[Figure]:
    with worker_process(service.settings, service.fleet, folder / "worker.log", PLAIN):
        submit(service)
        meters = {role: Meter(client) for role, client in clients.items()}
        time.sleep(seconds)
        for role, meter in meters.items():
            spent = meter.spent()
            what = f"{role}, hints through {broker}; a real worker that waits for work, {seconds:g} s"
            yield Figure(
                f"Idle worker, {broker}: commands of the {role}", spent.commands / spent.seconds, "/s", what
            )
            yield Figure(
                f"Idle worker, {broker}: share of the {role}", spent.share * 100, "%", "of a core; " + what
            )
        meters = {role: Meter(client) for role, client in clients.items()}
        began = time.monotonic()
        for _ in range(jobs):
            submit(service)
        took_s = time.monotonic() - began
        for role, meter in meters.items():
            spent = meter.spent()
            what = f"{role}, hints through {broker}; mean of {jobs} jobs one after another, idling included"
            yield Figure(f"Real job, {broker}: CPU of the {role}", spent.cpu_s / jobs * 1e6, "µs", what)
            yield Figure(f"Real job, {broker}: commands of the {role}", spent.commands / jobs, "", what)
        yield Figure(f"Real job, {broker}: time", took_s / jobs, "s", "submit until seen as ended")


def submit(service: Service) -> None:
    service.ended(service.submit(SAMPLES / "short-1.flac", vad=VadOptions(enabled=False), reuse=False))
