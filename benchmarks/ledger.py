"""Figures of the ledger: latency of a submit, pollers, duplicates, takeover, operations, overhead.

    make bench-ledger
    python -m benchmarks.ledger --quick --report FILE

Each measurement has a Redis, an API and workers of its own, with the service's defaults, and ends them. Where
there are two sides, both are measured in one run. `--quick` shows that all of it works; its sizes are too
small for figures.
"""

import argparse
import asyncio
import functools
import hashlib
import io
import itertools
import json
import os
import platform
import signal
import statistics
import sys
import tempfile
import time
import wave
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import soundfile

from benchmarks.http_load import PERIOD_S, Polls, poll_all, submit_all
from shared.fleet import WorkerState
from shared.job import Options, Status, VadOptions
from shared.job_store import NewJob
from shared.ledger import FINISH, PREPARE_QUEUE
from shared.media import Media
from shared.models import ModelSource
from shared.redis_store import RedisStore, connect
from shared.settings import PREFIX, Settings
from tests.support.api_server import api_server
from tests.support.redis_server import find_binary, running
from tests.support.service import MODEL, SAMPLES, Service
from tests.support.waiting import wait_until
from tests.support.worker_hand import WORKER, WorkerHand, window
from tests.support.worker_process import PLAIN, worker_process
from worker.engine.values import SAMPLE_RATE, DecodingOptions, Pcm, Window

FSYNC = ("everysec", "always")
RECORDING_S = 4
SETUP_CLIENTS = 16
STEPS = 4
"""Parts at work on the worker that is killed."""
TAKEN = 16
"""Steps that one dispatch takes."""
BATCH = 8
TINY_PIECES = 50_257
TOKENS = 40
TOKENS_S = 2.0
"""Sound so long may be written in TOKENS tokens and no more. The encoder hears 30 s whatever their length."""

_END_S = 300.0
_PRETENDED = "pretended"

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Figure:
    """A row of the report; `measured` says what `value` is of."""

    name: str
    value: str
    measured: str


@dataclass(frozen=True, slots=True)
class Sizes:
    """`submits` by number of clients; `takeovers` are leases in seconds with how often each is tried."""

    submits: dict[int, int]
    pollers: int
    polling_s: float
    jobs: int
    takeovers: tuple[tuple[float, int], ...]
    operations: int
    batches: int


FULL = Sizes({1: 300, 16: 960}, 2_000, 60.0, 500, ((30.0, 3), (6.0, 5)), 2_000, 8)
QUICK = Sizes({1: 10, 16: 32}, 150, 4.0, 10, ((3.0, 1), (2.0, 1)), 64, 2)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ledger")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that all of it works")
    parser.add_argument("--report", type=Path, metavar="FILE", help="writes the table there, too")
    asked = parser.parse_args()
    _forget_settings()
    # What was started is ended on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    began = time.monotonic()
    figures = []
    for figure in itertools.chain.from_iterable(
        measure(QUICK if asked.quick else FULL) for measure in MEASUREMENTS
    ):
        _say(f"  {figure.name}: {figure.value}")
        figures.append(figure)
    _say(f"all of it took {time.monotonic() - began:.0f} s")
    report = _report(figures, is_quick=asked.quick)
    print(report, end="")
    if asked.report:
        asked.report.write_text(report)


def submit_latency(sizes: Sizes) -> Iterator[Figure]:
    """Idle: a worker with room is on the books, so each submit sends its hint, but nobody works on it.
    Busy: the bundled model works on all that was submitted so far."""
    for fsync in FSYNC:
        with _service(fsync) as service, api_server(service.settings) as api:
            numbers = itertools.count()
            # The first requests of a process load and connect what later ones find ready.
            asyncio.run(submit_all(api.url, map(_recording, itertools.islice(numbers, 32)), SETUP_CLIENTS))
            for clients, count in sizes.submits.items():
                bodies = list(map(_recording, itertools.islice(numbers, count)))
                with_worker = _with_a_pretended_worker(service, bodies)
                yield _submit_figure(api.url, fsync, "idle", clients, with_worker)
            service.fleet.leave(_PRETENDED)
            with worker_process(service.settings, service.fleet, _log(service)):
                wait_until(lambda: any(worker.busy for worker in service.fleet.live()), _END_S)
                for clients, count in sizes.submits.items():
                    bodies = list(map(_recording, itertools.islice(numbers, count)))
                    yield _submit_figure(api.url, fsync, "busy", clients, bodies)


def _submit_figure(url: str, fsync: str, workers: str, clients: int, bodies: Iterable[bytes]) -> Figure:
    _say(f"submits: appendfsync {fsync}, workers {workers}, {clients} at once")
    seconds = [took_s for _, took_s in asyncio.run(submit_all(url, bodies, clients))]
    return Figure(
        f"Submit, appendfsync {fsync}, workers {workers}, {_count(clients, 'client')}",
        _percentiles(seconds, (50, 99)),
        f"{len(seconds)} times `POST /v1/jobs`, {RECORDING_S} s of WAV as the body, until the 202 is read",
    )


def _with_a_pretended_worker(service: Service, bodies: Iterable[bytes]) -> Iterator[bytes]:
    """Its beat is renewed while the recordings are fetched."""
    for index, body in enumerate(bodies):
        if index % 50 == 0:
            service.fleet.beat(WorkerState(_PRETENDED, (), {PREPARE_QUEUE: 1_000_000}))
        yield body


def pollers(sizes: Sizes) -> Iterator[Figure]:
    """Each asks for a job of its own: most of the jobs wait, the others are at work or have ended."""
    with _service() as service, api_server(service.settings) as api:
        _say(f"pollers: {sizes.pollers} jobs to ask for")
        bodies = map(_recording, range(sizes.pollers))
        job_ids = [job_id for job_id, _ in asyncio.run(submit_all(api.url, bodies, SETUP_CLIENTS))]
        with worker_process(service.settings, service.fleet, _log(service)):
            wait_until(lambda: _audio_done(service, job_ids).audio_s > 0, _END_S)
            marks = [_audio_done(service, job_ids)]
            marks.append(_later(service, job_ids, sizes.polling_s / 2))
            _say(f"pollers: {sizes.pollers} of them for {sizes.polling_s:g} s")
            polls = asyncio.run(poll_all(api, job_ids, sizes.polling_s))
            marks.append(_audio_done(service, job_ids))
            marks.append(_later(service, job_ids, sizes.polling_s / 2))
        is_work_left = any(not service.jobs.get(job_id).status.is_terminal for job_id in job_ids)
    assert is_work_left, "the work ran out before all was measured"
    yield from _poll_figures(polls, sizes)
    yield _throughput_figure(marks, sizes)


@dataclass(frozen=True, slots=True)
class Mark:
    """How much audio was done when."""

    at: float
    audio_s: float


def _audio_done(service: Service, job_ids: Iterable[str]) -> Mark:
    return Mark(time.monotonic(), sum(service.jobs.get(job_id).done_s for job_id in job_ids))


def _later(service: Service, job_ids: Iterable[str], seconds: float) -> Mark:
    _say(f"pollers: none for {seconds:g} s")
    time.sleep(seconds)
    return _audio_done(service, job_ids)


def _throughput_figure(marks: Sequence[Mark], sizes: Sizes) -> Figure:
    """`marks` part the run into: without pollers, with, without."""
    audio_s = [after.audio_s - before.audio_s for before, after in itertools.pairwise(marks)]
    took_s = [after.at - before.at for before, after in itertools.pairwise(marks)]
    with_pollers = audio_s[1] / took_s[1]
    without = (audio_s[0] + audio_s[2]) / (took_s[0] + took_s[2])
    return Figure(
        f"Throughput with {sizes.pollers} pollers, as a share of that without",
        f"{with_pollers / without:.2f} ({with_pollers:.1f} of {without:.1f} s of audio per s)",
        f"one worker with the bundled model on jobs of {RECORDING_S} s, decoding included: "
        f"{took_s[0]:.0f} s without pollers, {took_s[1]:.0f} s with, {took_s[2]:.0f} s without",
    )


def _poll_figures(polls: Polls, sizes: Sizes) -> Iterator[Figure]:
    answered_per_s, offered_per_s = len(polls.seconds) / sizes.polling_s, sizes.pollers / PERIOD_S
    yield Figure(
        f"Polls answered, {sizes.pollers} pollers, workers busy",
        f"{answered_per_s:.0f}/s of {offered_per_s:.0f}/s, {polls.unanswered} unanswered",
        f"`GET /v1/jobs/ID`, each every {PERIOD_S:g} s, for {sizes.polling_s:g} s; {polls.connections} "
        f"connections; the API took {polls.api_share:.0%} of a core, who asked {polls.client_share:.0%}",
    )
    yield Figure(
        f"Latency of a poll, {sizes.pollers} pollers, workers busy",
        _percentiles(polls.seconds, (50, 95, 99)),
        "from when the poll was due until its answer is read",
    )


def executions(sizes: Sizes) -> Iterator[Figure]:
    """Nothing fails here, so what is begun twice is the ledger's own doing."""
    _say(f"executions: {sizes.jobs} jobs")
    with (
        _service() as service,
        api_server(service.settings) as api,
        worker_process(service.settings, service.fleet, _log(service), PLAIN),
        worker_process(service.settings, service.fleet, _log(service), PLAIN),
    ):
        bodies = map(_recording, range(sizes.jobs))
        taken = asyncio.run(submit_all(api.url, bodies, SETUP_CLIENTS, "vad=off"))
        jobs = [service.ended(job_id, _END_S) for job_id, _ in taken]
    assert all(job.status is Status.COMPLETED for job in jobs)
    yield Figure(
        "Executions per job without faults",
        f"{sum(job.attempt for job in jobs) / len(jobs):.4f}",
        f"sum of the attempts of {len(jobs)} jobs on two workers; target: at most 1.001",
    )


def takeover(sizes: Sizes) -> Iterator[Figure]:
    for lease_s, times in sizes.takeovers:
        with _service(lease_s=lease_s) as service:
            seconds = [_taken_over_s(service, number) for number in range(times)]
        yield Figure(
            f"Takeover after `kill -9`, lease {lease_s:g} s, sweep {service.settings.sweep_s:g} s",
            f"{statistics.median(seconds):.1f} s, longest {max(seconds):.1f} s",
            f"{_count(times, 'kill')} of a worker at {STEPS} parts, until another has claimed all of them",
        )


def _taken_over_s(service: Service, number: int) -> float:
    """A worker is killed amid its windows while another stands by."""
    _say(f"takeover: lease {service.settings.lease_s:g} s, kill {number + 1}")
    paced = (*PLAIN, "--pace", "0.1")
    with worker_process(service.settings, service.fleet, _log(service), paced, ANANSE_BATCH_SIZE="1") as busy:
        job_ids = [_submit_noise(service, STEPS * number + step) for step in range(STEPS)]
        for job_id in job_ids:
            service.wait_for_windows(job_id, 1)
        with worker_process(service.settings, service.fleet, _log(service), paced):
            busy.kill()
            began = time.monotonic()
            wait_until(lambda: all(service.jobs.get(job_id).attempt > 1 for job_id in job_ids), _END_S)
            took_s = time.monotonic() - began
    for job_id in job_ids:
        service.ledger.cancel(job_id, webhook=None, retention_s=60)
    for worker in service.fleet.live():
        service.fleet.leave(worker.name)
    return took_s


def _submit_noise(service: Service, seed: int) -> str:
    """Ten windows of the plain worker's, half a second each."""
    path = Path(service.settings.state_dir, "noise.wav")
    path.write_bytes(_wav(_noise(seed, 50)))
    return service.submit(path, vad=VadOptions(enabled=False))


def operations(sizes: Sizes) -> Iterator[Figure]:
    """One after another from one client, each with Redis's answer."""
    for fsync in FSYNC:
        _say(f"operations: appendfsync {fsync}")
        with _service(fsync) as service:
            for name, per_s, what in _operation_rates(service, sizes.operations):
                yield Figure(f"Ledger, {name}, appendfsync {fsync}", f"{per_s:,.0f}/s", what)


def _operation_rates(service: Service, count: int) -> Iterator[tuple[str, float, str]]:
    ledger, hand = service.ledger, WorkerHand(service.ledger, service.fleet, service.blobs)
    per_s, _ = _timed(service.jobs.create, map(_new_job, range(count)))
    yield "create", per_s, f"{count} records, each read back"
    rooms = range(TAKEN, count + 1, TAKEN)
    per_s, sent = _timed(lambda room: ledger.dispatch(PREPARE_QUEUE, room, _END_S), rooms)
    hints = [hint for some in sent for hint in some]
    assert len(hints) == TAKEN * len(rooms), f"{len(hints)} steps sent by {len(rooms)} dispatches"
    yield (
        f"dispatch({TAKEN})",
        per_s,
        f"{len(rooms)} calls, each of which took {TAKEN} of {count} waiting steps",
    )
    per_s, prepares = _timed(lambda hint: ledger.claim(hint.job_id, hint.step, WORKER), hints)
    yield "claim", per_s, f"{len(hints)} dispatched steps"
    parts = [part for prepare in prepares for part in hand.cut(prepare)]
    result = window(0, 0.0, 30.0, "window " * TOKENS)
    per_s, _ = _timed(lambda part: ledger.checkpoint(part, result, 30.0), parts)
    yield "checkpoint", per_s, f"{len(parts)} windows of {TOKENS} words"
    per_s, _ = _timed(ledger.finish_part, parts)
    yield "finish_part", per_s, f"{len(parts)} parts, each the last of its job"
    ends = [ledger.claim(part.job_id, FINISH, WORKER) for part in parts]
    end = functools.partial(ledger.end, status=Status.COMPLETED, fields={}, webhook=None, retention_s=60)
    per_s, _ = _timed(end, ends)
    yield "end", per_s, f"{len(ends)} jobs without a webhook"


def overhead(sizes: Sizes) -> Iterator[Figure]:
    """Beats are those of a worker with all its slots taken."""
    _say("overhead: inference of the tiny shape")
    with tempfile.TemporaryDirectory(prefix="ananse-tiny-") as folder:
        inference_s, shape = _tiny_inference(Path(folder), sizes.batches)
    yield Figure("Inference per window, tiny shape", f"{inference_s * 1000:.1f} ms", shape)
    for fsync in FSYNC:
        _say(f"overhead: checkpoints and beats, appendfsync {fsync}")
        with _service(fsync) as service:
            checkpoint_s, beat_s = _ledger_s(service, sizes.operations)
        slots = 2 * service.settings.part_slots
        beats = inference_s * slots / (service.settings.lease_s / 3)
        ledger_s = checkpoint_s + beats * beat_s
        yield Figure(
            f"Ledger per window, appendfsync {fsync}",
            f"{ledger_s / inference_s:.2%} of inference ({ledger_s * 1000:.2f} ms)",
            f"mean of {sizes.operations} checkpoints of {TOKENS} words, and {beats:.2f} beats, the window's "
            f"share with {slots} parts held; target: under 3 %",
        )


def _ledger_s(service: Service, count: int) -> tuple[float, float]:
    """Seconds that a checkpoint and a beat take."""
    hand = WorkerHand(service.ledger, service.fleet, service.blobs)
    job, _ = service.jobs.create(_new_job(0))
    (part,) = hand.cut(hand.begin(job.id))
    results = [window(index, index * 30.0, index * 30.0 + 30.0, "window " * TOKENS) for index in range(count)]
    checkpoints_per_s, _ = _timed(lambda result: service.ledger.checkpoint(part, result, 30.0), results)
    beats_per_s, _ = _timed(service.ledger.beat, [part] * count)
    return 1 / checkpoints_per_s, 1 / beats_per_s


def _tiny_inference(folder: Path, batches: int) -> tuple[float, str]:
    """Seconds per window, and of what."""
    # Nothing else here needs torch, and the load generator is to be light.
    from worker.engine.whisper import load_runner  # noqa: PLC0415

    _write_tiny(folder)
    runner = load_runner(ModelSource("tiny", str(folder)), device="cpu", dtype="auto", threads=0)
    options = DecodingOptions(language="en", temperatures=(0.0,))
    windows = [Window(n, 0.0, _noise(n, TOKENS_S), TOKENS_S, options) for n in range(BATCH)]
    batches_per_s, found = _timed(lambda _: runner.run(windows), range(batches))
    tokens = statistics.mean(len(one.tokens) for batch in found for one in batch)
    card = runner.card
    return 1 / batches_per_s / BATCH, (
        f"mean of {batches} batches of {BATCH}, {tokens:.0f} tokens a window; random weights, "
        f"{card.parameters / 1e6:.1f} M in {card.dtype} on {card.device}, threads {card.details['threads']}"
    )


def _write_tiny(folder: Path) -> None:
    """Whisper tiny's shape with random weights; its words are the bundled model's, and fillers."""
    import torch  # noqa: PLC0415
    from transformers import (  # noqa: PLC0415
        WhisperConfig,
        WhisperForConditionalGeneration,
        WhisperTokenizer,
        logging,
    )

    logging.disable_progress_bar()
    bundled = SAMPLES.parent / MODEL
    words: dict[str, int] = json.loads((bundled / "vocab.json").read_text())
    merges = [tuple(line.split()) for line in (bundled / "merges.txt").read_text().splitlines()[1:]]
    known: dict[str, int] = WhisperTokenizer.from_pretrained(bundled).get_vocab()
    steering = sorted((word for word in known if known[word] > len(words)), key=lambda word: known[word])
    fillers = {f"filler{number}": number for number in range(len(words), TINY_PIECES)}
    tokenizer = WhisperTokenizer(vocab=words | fillers, merges=merges)
    tokenizer.add_tokens(steering, special_tokens=True)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    # The rest of Transformers' defaults is the shape of tiny.
    WhisperForConditionalGeneration(WhisperConfig(vocab_size=len(tokenizer))).save_pretrained(folder)


MEASUREMENTS: tuple[Callable[[Sizes], Iterator[Figure]], ...] = (
    submit_latency,
    pollers,
    executions,
    takeover,
    operations,
    overhead,
)


@contextmanager
def _service(fsync: str = "everysec", **settings: Any) -> Iterator[Service]:
    """A real Redis that keeps its file, and a folder; both are gone afterwards."""
    binary = find_binary()
    if binary is None:
        sys.exit("no redis-server or valkey-server is installed")
    with (
        tempfile.TemporaryDirectory(prefix="ananse-bench-") as folder,
        running(binary, "--appendonly", "yes", "--appendfsync", fsync) as redis,
        connect(redis.url) as client,
    ):
        places: dict[str, Any] = {"redis_url": redis.url, "blob_url": f"file://{folder}", "state_dir": folder}
        yield Service(Settings(**(places | settings)), RedisStore(client))


def _log(service: Service) -> Path:
    return Path(service.settings.state_dir, "worker.log")


def _forget_settings() -> None:
    """Those of the shell are not the benchmark's."""
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        del os.environ[name]


def _recording(number: int) -> bytes:
    """Speech that no other number has, so that nothing is known of it before."""
    pcm = _speech().copy()
    pcm[:32] = [number >> bit & 1 for bit in range(32)]
    return _wav(pcm)


@functools.cache
def _speech() -> Pcm:
    pcm, _ = soundfile.read(SAMPLES / "short-1.flac", dtype="int16", frames=RECORDING_S * SAMPLE_RATE)
    return np.asarray(pcm, np.int16)


def _noise(seed: int, seconds: float) -> Pcm:
    return np.random.default_rng(seed).normal(0, 3000, int(seconds * SAMPLE_RATE)).astype(np.int16)


def _wav(pcm: Pcm) -> bytes:
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        file.writeframes(pcm.astype("<i2").tobytes())
    return content.getvalue()


def _new_job(number: int) -> NewJob:
    job_id = f"job_{number:08}"
    sha256 = hashlib.sha256(job_id.encode()).hexdigest()
    return NewJob(job_id, "default", Options(model=MODEL), Media("speech.wav", 1000, sha256))


def _timed(act: Callable[[T], R], over: Iterable[T]) -> tuple[float, list[R]]:
    """Calls per second, one after another, and what they gave."""
    each = list(over)
    began = time.perf_counter()
    given = [act(one) for one in each]
    return len(each) / (time.perf_counter() - began), given


def _percentiles(seconds: Sequence[float], which: Sequence[int]) -> str:
    values = np.percentile(seconds, which) * 1000
    return ", ".join(f"p{percent} {value:.1f} ms" for percent, value in zip(which, values, strict=True))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _report(figures: Sequence[Figure], *, is_quick: bool) -> str:
    rows = [f"| {figure.name} | {figure.value} | {figure.measured} |" for figure in figures]
    note = ["A quick run: its sizes are no good for figures.", ""] if is_quick else []
    return "\n".join(
        [*note, _machine(), "", "| Figure | Value | What was measured |", "|---|---|---|", *rows, ""]
    )


def _machine() -> str:
    """Load generator, API, workers and Redis share it."""
    cores = _count(len(os.sched_getaffinity(0)), "core")
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(": ")[2] for line in cpuinfo if line.startswith("model name")]
    return (
        f"All on one machine: {cores}, {[*names, platform.machine()][0]}, Python {platform.python_version()}."
    )


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
