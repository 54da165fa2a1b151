"""What all of the API's processes take together, under the names that Prometheus' own libraries use for
one."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from prometheus_client import ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_PROC = Path("/proc")
_CPU = "process_cpu_seconds"
# Of these the oldest and the narrowest count, the others add up.
_LEAST = ("process_start_time_seconds", "process_max_fds")
_CHILDREN_TIMES = slice(13, 15)


class ProcessesCollector(Collector):
    """`family` names the processes, the one that has begun the others first: what its ended children took
    counts on."""

    def __init__(self, family: Callable[[], Sequence[int]]) -> None:
        self._family = family

    def collect(self) -> Iterator[Metric]:
        pids = self._family()
        amounts: dict[str, list[float]] = {}
        families: dict[str, Metric] = {}
        for metric in (metric for pid in pids for metric in _of(pid)):
            families.setdefault(metric.name, metric)
            amounts.setdefault(metric.name, []).append(metric.samples[0].value)
        for name, values in amounts.items():
            meaning = families[name].documentation
            if name == _CPU:
                yield CounterMetricFamily(name, meaning, value=sum(values) + _ended_children_s(pids[0]))
            else:
                yield GaugeMetricFamily(name, meaning, value=min(values) if name in _LEAST else sum(values))


def siblings() -> Sequence[int]:
    """The process that started this one, and all it has started."""
    parent = os.getppid()
    children: list[int] = []
    with suppress(OSError):
        children = [int(pid) for pid in (_PROC / f"{parent}/task/{parent}/children").read_text().split()]
    return [parent, *(children or [os.getpid()])]


def _of(pid: int) -> Iterator[Metric]:
    yield from ProcessCollector(pid=lambda: pid, registry=None).collect()


def _ended_children_s(pid: int) -> float:
    with suppress(OSError):
        words = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        return sum(map(int, words[_CHILDREN_TIMES])) / os.sysconf("SC_CLK_TCK")
    return 0.0
