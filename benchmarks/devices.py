"""Figures of models on one processor: two at once or in turns, what the warm-up saves the first job, and
what memory comes back when a model leaves.

    python -m benchmarks.devices [--model FOLDER] [--rounds 3]

Both sides of each comparison run in one go. On a machine that is busy only the processor times compare.
"""

import argparse
import os
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import psutil
import soundfile
import torch

from shared.models import ModelSource
from worker.engine.loading import load
from worker.engine.residence import Residence
from worker.engine.values import SAMPLE_RATE, DecodingOptions, Window
from worker.engine.whisper import WhisperRunner, load_runner

ROOT = Path(__file__).parents[1]
PASSES = 4
WINDOW_S = 15
SETTLE_S = 12.0
"""jemalloc gives back after ten seconds."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default=str(ROOT / "models" / "synthetic-en"))
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    threads = len(os.sched_getaffinity(0))

    def new() -> WhisperRunner:
        return load_runner(ModelSource("m", given.model), device="cpu", dtype="auto", threads=threads)

    # First: what is compiled and cached later would help the cold side.
    _first_window(given.model, threads)
    _memory(new, given.rounds)
    _side_by_side(new(), new(), threads, given.rounds)


def _first_window(model: str, threads: int) -> None:
    loaded = load(ModelSource("m", model), device="cpu", dtype="auto", threads=threads, hf_endpoint=None)
    runner = WhisperRunner(loaded)
    for name in ("first window, cold", "second window"):
        print(f"{name:28} {_seconds(lambda: runner.run(_windows(True)[:1])):8.2f} s", flush=True)
    warm = WhisperRunner(loaded)
    warm.warm_up()
    print(
        f"{'first window after warm-up':28} {_seconds(lambda: warm.run(_windows(True)[:1])):8.2f} s",
        flush=True,
    )


def _memory(new: Callable[[], WhisperRunner], rounds: int) -> None:
    resident = Residence().add(new)
    for number in range(rounds):
        began = time.perf_counter()
        with resident.hold() as runner:
            came_s = time.perf_counter() - began
            runner.run(_windows())
        used = _rss_mb()
        resident.rest()
        at_once = _rss_mb()
        time.sleep(SETTLE_S)
        print(
            f"load {number}: {came_s:6.2f} s, in use {used:5.0f} MB, left {at_once:5.0f} MB, "
            f"{SETTLE_S:.0f} s later {_rss_mb():5.0f} MB",
            flush=True,
        )


def _side_by_side(first: WhisperRunner, second: WhisperRunner, threads: int, rounds: int) -> None:
    turn = threading.Lock()
    ways: dict[str, AbstractContextManager[object]] = {"side by side": nullcontext(), "in turns": turn}
    for _ in range(rounds):
        for name, guard in ways.items():
            wall_s, busy_s = _both(first, second, threads, guard)
            print(f"{name:12} {wall_s:7.2f} s, processor {busy_s:7.2f} s", flush=True)


def _both(
    first: WhisperRunner, second: WhisperRunner, threads: int, guard: AbstractContextManager[object]
) -> tuple[float, float]:
    def work(runner: WhisperRunner) -> None:
        torch.set_num_threads(threads)
        for _ in range(PASSES):
            with guard:
                runner.run(_windows())

    workers = [threading.Thread(target=work, args=(runner,)) for runner in (first, second)]
    began, busy = time.perf_counter(), time.process_time()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return time.perf_counter() - began, time.process_time() - busy


def _windows(word_timestamps: bool = False) -> list[Window]:
    pcm, _ = soundfile.read(ROOT / "models" / "samples" / "minute.flac", dtype="int16")
    size = WINDOW_S * SAMPLE_RATE
    options = DecodingOptions(language="en", word_timestamps=word_timestamps, temperatures=(0.0,))
    return [
        Window(index, float(index * WINDOW_S), pcm[index * size : (index + 1) * size], WINDOW_S, options)
        for index in range(len(pcm) // size)
    ]


def _seconds(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def _rss_mb() -> float:
    return psutil.Process().memory_info().rss / 2**20


if __name__ == "__main__":
    main()
