"""The view of the ledger as metrics, read when Prometheus asks. Every API tells the same about the one
ledger, so queries take `max`, never `sum`, over APIs."""

from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from api.ledger_view import LedgerView, Load, Queue, View
from shared.blob_store import BlobMissing, BlobStore
from shared.errors import DependencyError


class LedgerCollector(Collector):
    """Answers while Redis is away, too: that it is away, and nothing else about it."""

    def __init__(self, view: LedgerView, blobs: BlobStore) -> None:
        self._view = view
        self._blobs = blobs

    def collect(self) -> Iterator[Metric]:
        try:
            view = self._view.look()
        except DependencyError:
            yield _gauge("ananse_redis_up", "Whether the job store answers.", 0)
        else:
            yield _gauge("ananse_redis_up", "Whether the job store answers.", 1)
            yield from _of_redis(view)
            yield from _of_queues(view.queues.items())
            yield from _of_models(view.loads.items())
            yield from _of_ends(view)
        yield from _of_disk(self._blobs)


def _of_redis(view: View) -> Iterator[Metric]:
    yield _gauge("ananse_redis_memory_used_bytes", "Memory that Redis takes.", view.redis_used_bytes)
    yield _gauge("ananse_redis_memory_max_bytes", "Its bound, 0 for none.", view.redis_max_bytes)
    yield _gauge("ananse_workers_live", "Workers that have a heartbeat.", view.workers)
    yield _gauge("ananse_workers_draining", "Of these, those that are about to stop.", view.draining)
    yield _gauge("ananse_outcomes_unsaved", "Ended jobs whose outcome is not on disk yet.", view.unsaved)
    yield _gauge("ananse_last_sweep_timestamp_seconds", "When a sweeper last looked.", view.swept_at)
    yield _counter(
        "ananse_leases_expired", "Steps taken from a worker that had gone silent.", view.leases_expired
    )
    yield _counter(
        "ananse_hints_resent", "Messages sent again, for nobody had taken them.", view.hints_resent
    )


def _of_queues(queues: Iterable[tuple[str, Queue]]) -> Iterator[Metric]:
    steps = GaugeMetricFamily(
        "ananse_steps",
        "Steps: waiting in line, later (not to begin yet), busy (sent or held).",
        labels=("queue", "state"),
    )
    slots = GaugeMetricFamily("ananse_slots", "Steps that live workers take at once.", labels=("queue",))
    oldest = GaugeMetricFamily(
        "ananse_oldest_waiting_seconds", "How long the first in line has waited.", labels=("queue",)
    )
    messages = GaugeMetricFamily("ananse_broker_messages", "Hints nobody has fetched.", labels=("queue",))
    for name, queue in queues:
        for state, count in (("waiting", queue.waiting), ("later", queue.later), ("busy", queue.busy)):
            steps.add_metric((name, state), count)
        slots.add_metric((name,), queue.slots)
        oldest.add_metric((name,), queue.oldest_s)
        messages.add_metric((name,), queue.messages)
    yield from (steps, slots, oldest, messages)


def _of_models(loads: Iterable[tuple[str, Load]]) -> Iterator[Metric]:
    backlog = GaugeMetricFamily(
        "ananse_backlog_seconds",
        "Audio still to be transcribed: of jobs nobody has begun (waiting) and of others (running).",
        labels=("model", "state"),
    )
    workers = GaugeMetricFamily("ananse_workers", "Live workers that take new work.", labels=("model",))
    speed = GaugeMetricFamily(
        "ananse_model_speed", "Audio seconds per second of one worker, as last measured.", labels=("model",)
    )
    fleet = GaugeMetricFamily(
        "ananse_fleet_speed", "Audio seconds per second of all live workers.", labels=("model",)
    )
    for model, load in loads:
        backlog.add_metric((model, "waiting"), load.waiting_s)
        backlog.add_metric((model, "running"), load.running_s)
        workers.add_metric((model,), load.workers)
        speed.add_metric((model,), load.speed)
        fleet.add_metric((model,), load.fleet_speed)
    yield from (backlog, workers, speed, fleet)


def _of_ends(view: View) -> Iterator[Metric]:
    ended = CounterMetricFamily(
        "ananse_jobs_ended",
        "Jobs that have ended, with the code of those that failed.",
        labels=("status", "code", "model"),
    )
    for labels, count in view.ended.items():
        ended.add_metric(labels, count)
    yield ended


def _of_disk(blobs: BlobStore) -> Iterator[Metric]:
    """A store that has no bound, or is away, tells nothing."""
    try:
        free = blobs.free_bytes()
    except (BlobMissing, DependencyError, OSError):
        return
    if free is not None:
        yield _gauge("ananse_blob_store_free_bytes", "Room where the recordings lie.", free)


def _gauge(name: str, meaning: str, value: float) -> Metric:
    return GaugeMetricFamily(name, meaning, value=value)


def _counter(name: str, meaning: str, value: float) -> Metric:
    return CounterMetricFamily(name, meaning, value=value)
