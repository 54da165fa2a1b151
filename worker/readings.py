"""What others keep anyway, read when Prometheus asks: engines, held steps, memory."""

import resource
from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from worker.context import Context
from worker.engine.meter import Statistics

Read = Callable[[Statistics], float]

_ENGINE_COUNTS: tuple[tuple[str, str, Read], ...] = (
    ("windows", "Windows that were transcribed.", lambda one: one.windows),
    ("windows_failed", "Windows that came to nothing.", lambda one: one.failed),
    ("batches", "Passes through the model.", lambda one: one.batches),
    ("rows", "Slots used in all passes.", lambda one: one.rows),
    ("audio_seconds", "Audio that was transcribed.", lambda one: one.audio_s),
    ("busy_seconds", "Time the model worked.", lambda one: one.busy_s),
    ("idle_seconds", "Time the model had nothing to do.", lambda one: one.idle_s),
    (
        "out_of_memory",
        "Passes without enough memory; the slots were halved.",
        lambda one: one.overflows,
    ),
)
_ENGINE_STATES: tuple[tuple[str, str, Read], ...] = (
    (
        "batch_limit",
        "Slots now; fewer than the setting after memory ran out.",
        lambda one: one.batch_limit,
    ),
    ("batch_fill_ratio", "Mean share of ANANSE_BATCH_SIZE in use, since start.", lambda one: one.batch_fill),
    ("slots_used", "Slots that hold a window.", lambda one: one.slots_used),
    ("windows_waiting", "Windows that wait for the model.", lambda one: one.waiting),
    ("waiting_audio_seconds", "Audio in them.", lambda one: one.waiting_s),
    (
        "pass_running_seconds",
        "How long the model has been at its pass, 0 when it is idle.",
        lambda one: one.stuck_for_s,
    ),
)

GPU_MEMORY = {
    "allocated": "Memory of the device that tensors of this worker take.",
    "reserved": "Memory of the device that torch keeps for this worker.",
    "used": "Memory of the device in use, by whomever.",
    "total": "Memory of the device.",
}


class Readings(Collector):
    def __init__(self, context: Context) -> None:
        self._context = context

    def collect(self) -> Iterator[Metric]:
        context, leases = self._context, self._context.leases
        yield self._info()
        yield self._models()
        yield _gauge("ananse_worker_draining", "Whether it is about to stop.", leases.draining.is_set())
        yield _gauge("ananse_worker_steps_held", "Steps it works on.", leases.count)
        slots = GaugeMetricFamily("ananse_worker_slots", "Steps it takes at once.", labels=("queue",))
        for queue, amount in context.slots.items():
            slots.add_metric((queue,), amount)
        yield slots
        yield CounterMetricFamily("ananse_worker_messages", "Messages it fetched.", value=leases.fetched)
        yield CounterMetricFamily(
            "ananse_worker_lease_errors",
            "Leases it could not renew, for Redis was away.",
            value=leases.errors,
        )
        peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        yield _gauge("ananse_worker_peak_memory_bytes", "Most memory it ever held.", peak_bytes)
        yield from self._engines()
        yield from self._gpus()

    def _info(self) -> Metric:
        info = GaugeMetricFamily(
            "ananse_worker_info", "Always 1: how the fleet calls it.", labels=("worker",)
        )
        info.add_metric((self._context.name,), 1)
        return info

    def _models(self) -> Metric:
        models = GaugeMetricFamily(
            "ananse_worker_model_info", "Always 1: what it serves.", labels=("model", "device", "dtype")
        )
        for model, (_, card) in self._context.engines.items():
            models.add_metric((model, card.device, card.dtype), 1)
        return models

    def _engines(self) -> Iterator[Metric]:
        engines = {model: engine.statistics() for model, (engine, _) in self._context.engines.items()}
        for name, meaning, read in _ENGINE_COUNTS:
            counter = CounterMetricFamily(f"ananse_engine_{name}", meaning, labels=("model",))
            yield from _by_model(counter, engines.items(), read)
        for name, meaning, read in _ENGINE_STATES:
            gauge = GaugeMetricFamily(f"ananse_engine_{name}", meaning, labels=("model",))
            yield from _by_model(gauge, engines.items(), read)

    def _gpus(self) -> Iterator[Metric]:
        if not any(card.device.startswith("cuda") for _, card in self._context.engines.values()):
            return
        # torch: not for a worker that runs something else.
        from worker.engine.device_memory import device_memory  # noqa: PLC0415

        for name, meaning in GPU_MEMORY.items():
            gauge = GaugeMetricFamily(f"ananse_gpu_memory_{name}_bytes", meaning, labels=("device",))
            for memory in device_memory():
                gauge.add_metric((memory.device,), getattr(memory, f"{name}_bytes"))
            yield gauge


def _by_model(
    family: CounterMetricFamily | GaugeMetricFamily, engines: Iterable[tuple[str, Statistics]], read: Read
) -> Iterator[Metric]:
    for model, statistics in engines:
        family.add_metric((model,), read(statistics))
    yield family


def _gauge(name: str, meaning: str, value: float) -> Metric:
    return GaugeMetricFamily(name, meaning, value=value)
