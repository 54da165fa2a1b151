"""What the API counts, and how it is told to Prometheus. Views and parts say what happened; the names and
labels of metrics stand here, and docs/metrics.md tells them to operators."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from flask import Flask, Response, g, has_request_context, request
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from api.processes import ProcessesCollector, siblings

UNKNOWN = "unknown"
"""The route of whatever no route fits: a path is the client's own words and makes no label."""

_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
_REQUEST_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_UPLOAD_BYTES = tuple(4.0**power * 1024 for power in range(3, 12))


class Metrics:
    """Counts of this process, or of all of gunicorn's where they share a folder (see gunicorn_conf.py): then
    they outlive a process that was killed."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._own = CollectorRegistry()
        self._requests = Counter(
            "ananse_http_requests",
            "Requests that were answered.",
            ("route", "method", "status"),
            registry=self._own,
        )
        self._request_s = Histogram(
            "ananse_http_request_seconds",
            "Until the answer begins, without the time it was held back because the client asked for that.",
            ("route", "method"),
            buckets=_REQUEST_S,
            registry=self._own,
        )
        self._problems = Counter(
            "ananse_http_problems",
            "Answers that are a problem document, by its code.",
            ("route", "method", "code"),
            registry=self._own,
        )
        self._upload_bytes = Histogram(
            "ananse_upload_bytes",
            "Size of recordings that were received whole.",
            buckets=_UPLOAD_BYTES,
            registry=self._own,
        )
        self._accepted = Counter(
            "ananse_jobs_accepted", "Jobs that were made.", ("model",), registry=self._own
        )
        self._waiting = Gauge(
            "ananse_waiting_clients",
            "Clients whose answer is held back: until a job moves, or as a stream of events.",
            ("kind",),
            multiprocess_mode="livesum",
            registry=self._own,
        )
        self._all: CollectorRegistry = CollectorRegistry()
        try:
            MultiProcessCollector(self._all)  # type: ignore[no-untyped-call]
            self._all.register(ProcessesCollector(siblings))
        except ValueError:
            self._all = self._own
            ProcessCollector(registry=self._all)
        PlatformCollector(registry=self._all)

    def install(self, app: Flask) -> None:
        """Counts every request of the app."""
        app.before_request(_begin)
        app.after_request(self._answered)

    def add(self, collector: Collector) -> None:
        """Something that is asked at each scrape."""
        self._all.register(collector)

    def text(self) -> bytes:
        return generate_latest(self._all)

    def uploaded(self, size_bytes: int) -> None:
        self._upload_bytes.observe(size_bytes)

    def accepted(self, model: str) -> None:
        self._accepted.labels(model).inc()

    @contextmanager
    def waiting(self, kind: str) -> Iterator[None]:
        """A client waits in here; a stream of events ends when its request is long over."""
        began = time.perf_counter()
        self._waiting.labels(kind).inc()
        try:
            yield
        finally:
            self._waiting.labels(kind).dec()
            if has_request_context():
                g.held_back_s += time.perf_counter() - began

    def _answered(self, answer: Response) -> Response:
        route = request.url_rule.rule if request.url_rule else UNKNOWN
        method = request.method if request.method in _METHODS else UNKNOWN
        took_s = time.perf_counter() - g.began - g.held_back_s
        self._requests.labels(route, method, answer.status_code).inc()
        self._request_s.labels(route, method).observe(max(0.0, took_s))
        if code := g.get("problem"):
            self._problems.labels(route, method, code).inc()
        return answer


def _begin() -> None:
    g.began, g.held_back_s = time.perf_counter(), 0.0
