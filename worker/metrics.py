"""What a worker counts, and the page where Prometheus reads it. Steps say what happened; names and labels of
metrics stand here, and docs/metrics.md tells them to operators. What is kept elsewhere is asked at each
scrape: see `worker/readings.py`."""

import time
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Generic, TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    start_http_server,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from shared.job import Job, Status
from shared.ledger import Claim
from shared.settings import Settings, SettingsError

_STAGE_S = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000)
_WAIT_S = (0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000, 10_000, 30_000)
_JOB_S = (0.3, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 3600, 10_800, 36_000)
_RTF = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_WEBHOOK_S = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60)

_STAGES = {
    "fetch": "download",
    "prepare": "prepare",
    "part": "transcribe",
    "finish": "finish",
    "deliver": "deliver",
}

T = TypeVar("T")


class Metrics:
    """Counts of one worker process, in a registry of their own."""

    def __init__(self) -> None:
        # When each series began is more series than it is worth.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self._steps = Counter(
            "ananse_worker_steps",
            "Steps by what became of them; the reason is an error code or the word the ledger refused with.",
            ("kind", "outcome", "reason"),
            registry=registry,
        )
        self._wait_s = Histogram(
            "ananse_worker_wait_seconds",
            "How long a step stood in line until it was claimed here.",
            ("kind",),
            buckets=_WAIT_S,
            registry=registry,
        )
        self._stage_s = Histogram(
            "ananse_worker_stage_seconds",
            "How long a stage took that came to its end; fetch, decode and detect are within prepare, "
            "download is a recording that came from an address.",
            ("stage",),
            buckets=_STAGE_S,
            registry=registry,
        )
        self._job_s = Histogram(
            "ananse_worker_job_seconds",
            "From a job's acceptance to its end, for jobs that ended here.",
            ("status",),
            buckets=_JOB_S,
            registry=registry,
        )
        self._job_rtf = Histogram(
            "ananse_worker_job_rtf",
            "Time from a completed job's first claim to its end, over the recording's length.",
            buckets=_RTF,
            registry=registry,
        )
        self._webhooks = Counter(
            "ananse_worker_webhook_attempts",
            "Attempts to deliver: delivered, put_off (tried again later), failed (given up) or disabled (not "
            "sent: its receiver only fails, or is gone).",
            ("outcome",),
            registry=registry,
        )
        self._webhook_s = Histogram(
            "ananse_worker_webhook_seconds",
            "How long an attempt to deliver took.",
            buckets=_WEBHOOK_S,
            registry=registry,
        )
        self._heartbeat_errors = Counter(
            "ananse_worker_heartbeat_errors", "Heartbeats that did not reach Redis.", registry=registry
        )

    def add(self, collector: Collector) -> None:
        """Something that is asked at each scrape."""
        self._registry.register(collector)

    def text(self) -> bytes:
        return generate_latest(self._registry)

    def serve(self, settings: Settings) -> "Page | None":
        """The page, if a port is set. Raises SettingsError when it cannot be had."""
        if not settings.metrics_port:
            return None
        try:
            return Page(settings, self._registry)
        except OSError as error:
            address = f"port {settings.metrics_port} of {settings.host}"
            cause = f"{address} cannot be had ({error.strerror}); name another one, or 0 for none"
            raise SettingsError(f"ANANSE_METRICS_PORT: {cause}") from error

    def claimed(self, claim: Claim) -> None:
        self._steps.labels(_kind(claim.step), "claimed", "").inc()
        self._wait_s.labels(_kind(claim.step)).observe(claim.waited_s)

    def step(self, step: str, outcome: str, reason: str = "") -> None:
        self._steps.labels(_kind(step), outcome, reason).inc()

    def done(self, step: str, seconds: float) -> None:
        self.step(step, "done")
        self.stage(_STAGES[_kind(step)], seconds)

    def stage(self, stage: str, seconds: float) -> None:
        self._stage_s.labels(stage).observe(max(0.0, seconds))

    def job_ended(self, job: Job, status: Status, now: datetime) -> None:
        """`job` as it was before its end, `now` by the clock of its record."""
        self._job_s.labels(status).observe(max(0.0, (now - job.created_at).total_seconds()))
        if status is Status.COMPLETED and job.started_at and job.media.duration_s:
            worked_s = max(0.0, (now - job.started_at).total_seconds())
            self._job_rtf.observe(worked_s / job.media.duration_s)

    def webhook(self, outcome: str, seconds: float) -> None:
        self._webhooks.labels(outcome).inc()
        self._webhook_s.observe(seconds)

    def heartbeat_failed(self) -> None:
        self._heartbeat_errors.inc()


class Page:
    """Answers in threads of its own, whatever the worker is at."""

    def __init__(self, settings: Settings, registry: CollectorRegistry) -> None:
        self._server, self._thread = start_http_server(settings.metrics_port, settings.host, registry)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Timed(Iterator[T], Generic[T]):
    """An iterator, and the seconds that were spent on getting its values."""

    def __init__(self, values: Iterable[T]) -> None:
        self._values = iter(values)
        self.seconds = 0.0

    def __next__(self) -> T:
        began = time.monotonic()
        try:
            return next(self._values)
        finally:
            self.seconds += time.monotonic() - began


def _kind(step: str) -> str:
    return step.split("-", 1)[0]
