"""The real ledger and dispatcher under fleets of thousands and queues of a million.

    make bench-scale
    python -m benchmarks.scale --quick --report FILE --json FILE
    python -m benchmarks.scale --only fleets,memory

Workers are simulated, what they ask of Redis is not: each heartbeat, claim, checkpoint and dispatch is the
service's own code on a Redis of its own. `--quick` shows that all of it works; its sizes are too small for
figures.
"""

import argparse
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import scale_fleet, scale_load, scale_queue, scale_service, scale_simulation
from benchmarks.scale_ground import Figure, say
from tests.support.redis_server import require_binary


@dataclass(frozen=True, slots=True)
class Sizes:
    """`queues` are how many steps wait, with how many tenants and models; `seconds` are of each pressing,
    `warm_s` and `at_work_s` of a fleet's work, before and while it is measured."""

    fleets: tuple[int, ...]
    waiting: int
    queues: tuple[tuple[tuple[int, ...], int, int], ...]
    calls: int
    memory: int
    takeovers: tuple[int, ...]
    at_work: tuple[int, ...]
    warm_s: float
    at_work_s: float
    saturation: tuple[int, ...]
    seconds: float
    shards: tuple[int, ...]
    jobs: int


FULL = Sizes(
    fleets=(1, 10, 100, 1_000, 5_000),
    waiting=12_000,
    queues=(
        ((1_000, 10_000), 1, 1),
        ((1_000, 10_000), 100, 10),
        ((10_000, 100_000, 1_000_000), 10_000, 1),
    ),
    calls=500,
    memory=2_000,
    takeovers=(100, 1_000, 5_000),
    at_work=(10, 100, 500, 1_000),
    warm_s=15.0,
    at_work_s=15.0,
    saturation=(0, 20_000),
    seconds=15.0,
    shards=(1, 2, 4),
    jobs=60,
)
QUICK = Sizes(
    fleets=(1, 20),
    waiting=100,
    queues=(((100, 200), 10, 2),),
    calls=10,
    memory=20,
    takeovers=(40,),
    at_work=(4,),
    warm_s=5.0,
    at_work_s=8.0,
    saturation=(50,),
    seconds=1.0,
    shards=(2,),
    jobs=3,
)
WINDOWS = 4
SHARD_PROCESSES = 4

Measure = Callable[[Sizes], Iterator[Figure]]


def queues(sizes: Sizes) -> Iterator[Figure]:
    for lengths, tenants, models in sizes.queues:
        yield from scale_queue.queues(lengths, tenants, models, sizes.calls)


MEASUREMENTS: dict[str, Measure] = {
    "fleets": lambda sizes: scale_fleet.fleets(sizes.fleets, sizes.waiting),
    "queues": queues,
    "memory": lambda sizes: scale_queue.memory(sizes.memory, WINDOWS),
    "takeovers": lambda sizes: scale_queue.takeovers(sizes.takeovers),
    "simulation": lambda sizes: scale_simulation.simulation(sizes.at_work, sizes.warm_s, sizes.at_work_s),
    "saturation": lambda sizes: scale_load.saturation(sizes.saturation, sizes.seconds, WINDOWS),
    "shards": lambda sizes: scale_load.shards(sizes.shards, SHARD_PROCESSES, sizes.seconds, WINDOWS),
    "service": lambda sizes: scale_service.brokers(sizes.jobs, sizes.seconds),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that all of it works")
    parser.add_argument("--only", metavar="NAMES", help=f"some of {', '.join(MEASUREMENTS)}")
    parser.add_argument("--report", type=Path, metavar="FILE", help="writes the table there, too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="writes the figures there")
    asked = parser.parse_args()
    # What was started is ended on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    figures = []
    began = time.monotonic()
    for name in asked.only.split(",") if asked.only else MEASUREMENTS:
        for figure in MEASUREMENTS[name](QUICK if asked.quick else FULL):
            say(f"  {figure.name}: {figure.text}")
            figures.append(figure)
    say(f"all of it took {time.monotonic() - began:.0f} s")
    report = _report(figures, is_quick=asked.quick)
    print(report, end="")
    if asked.report:
        asked.report.write_text(report)
    if asked.json:
        asked.json.write_text(json.dumps([asdict(figure) for figure in figures], indent=1) + "\n")


def _report(figures: Sequence[Figure], *, is_quick: bool) -> str:
    rows = [f"| {figure.name} | {figure.text} | {figure.what} |" for figure in figures]
    note = ["A quick run: its sizes are no good for figures.", ""] if is_quick else []
    return "\n".join([*note, _machine(), "", "| Figure | Value | Of what |", "|---|---|---|", *rows, ""])


def _machine() -> str:
    """Those who ask and Redis share it."""
    cores = len(os.sched_getaffinity(0))
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    binary = require_binary()
    return (
        f"All on one machine: {cores} cores, {[*names, platform.machine()][0]}, Python "
        f"{platform.python_version()}, {binary.name}."
    )


if __name__ == "__main__":
    main()
