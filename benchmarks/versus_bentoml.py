"""This service and BentoML: the same weights, recordings, clients and processor cores, one after the other.

    make bench-bento
    python -m benchmarks.versus_bentoml --quick --report FILE --json FILE

Twenty clients send fifty recordings of 3 s to 3 min, round after round, the sides in turn; each is started
as its users start it (`bentoml serve`, `ananse up`), warmed up and ended before the next. Then each loses the
process that holds the model in the middle of the work. `--quick` shows that all of it works; its sizes are
too small for figures.
"""

import argparse
import asyncio
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path

import httpx

from benchmarks.bento.clients import (
    Ask,
    ask_for_all,
    submit_and_wait,
    submit_and_wait_patiently,
    transcribe,
    transcribe_patiently,
)
from benchmarks.bento.figures import WINDOW_S, Figures, figures
from benchmarks.bento.recordings import LONGEST_S, Recording, recordings
from benchmarks.bento.report import Comparison, Key
from benchmarks.bento.servers import BENTO_PYTHON, OUR_SETTINGS, THREADS, Peak, Server, bento, ours

CORES = 2
WARM_UP_S = 12.0
"""The longest of the recordings that come before anything is measured."""

SEED_TAKES = 10
"""Its max_concurrency."""

NO_AUDIO = b"RIFF\x00\x00\x00\x00 no sound in it"


@dataclass(frozen=True, slots=True)
class Clients:
    name: str
    ask: Ask


@dataclass(frozen=True, slots=True)
class Side:
    """`hears_s` is how much it listens to of a recording; `model` is found in the command of the process that
    holds the model."""

    name: str
    start: Callable[[], AbstractContextManager[Server]]
    clients: tuple[Clients, ...]
    model: str
    hears_s: float = inf


@dataclass(frozen=True, slots=True)
class Kill:
    """kill -9 of all processes that have one of `words` in their command."""

    name: str
    side: Side
    clients: Clients
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sizes:
    recordings: int
    longest_s: float
    clients: int
    rounds: int
    warm_up: int


# BentoML's batching learns from its first eleven batches.
FULL = Sizes(50, LONGEST_S, 20, 5, 12)
QUICK = Sizes(6, 40.0, 4, 1, 3)

ONCE = Clients("first answer taken", transcribe)
PATIENT = Clients("refused ones come again", transcribe_patiently)
JOBS = Clients("`POST /v1/jobs`, wait", submit_and_wait)
JOBS_PATIENT = Clients("`POST /v1/jobs`, wait; cut off ones ask again", submit_and_wait_patiently)
SYNC = Clients("`POST /transcribe`", transcribe)

SEED = Side("BentoML, the seed", partial(bento, "Seed"), (ONCE, PATIENT), "--service-name seed", WINDOW_S)
BATCHED = Side("BentoML, batched", partial(bento, "Batched"), (PATIENT,), "--service-name model", WINDOW_S)
WHOLE = Side(
    "BentoML, batched, whole files", partial(bento, "BatchedWhole"), (PATIENT,), "--service-name model"
)
OURS = Side("Ananse", ours, (JOBS, SYNC), "-m worker")
SIDES = (SEED, BATCHED, WHOLE, OURS)

KILLS = (
    Kill("the server", SEED, ONCE, (SEED.model,)),
    Kill("the server", SEED, PATIENT, (SEED.model,)),
    Kill("the model's process", WHOLE, ONCE, (WHOLE.model,)),
    Kill("the model's process", WHOLE, PATIENT, (WHOLE.model,)),
    Kill("the worker", OURS, JOBS, (OURS.model,)),
    Kill(
        "worker, API and Redis at once",
        OURS,
        JOBS_PATIENT,
        (OURS.model, "gunicorn", "redis-server", "valkey-server"),
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.versus_bentoml")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that all of it works")
    parser.add_argument("--rounds", type=int, help=f"how often each side is measured, {FULL.rounds}")
    parser.add_argument("--report", type=Path, metavar="FILE", help="writes the tables there, too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="writes every round's figures there")
    asked = parser.parse_args()
    if not BENTO_PYTHON.exists():
        sys.exit("BentoML has an environment of its own: make bench-bento")
    # What was started is ended on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    _stay_on_two_cores()
    sizes = QUICK if asked.quick else FULL
    rounds = asked.rounds or sizes.rounds
    sent = recordings(sizes.recordings, sizes.longest_s)
    comparison = Comparison(
        about=_about(sizes, rounds, sent),
        ours=(OURS.name, JOBS.name),
        rounds=_rounds(sizes, rounds, sent),
        killed={
            (kill.side.name, f"{kill.name}; {kill.clients.name}"): _killed(kill, sizes, sent)
            for kill in KILLS
        },
        no_audio={side.name: _answer_to_no_audio(side) for side in (SEED, BATCHED, OURS)},
        is_quick=asked.quick,
    )
    report = comparison.as_text()
    print(report, end="")
    if asked.report:
        asked.report.write_text(report)
    if asked.json:
        asked.json.write_text(comparison.as_json())


def _rounds(sizes: Sizes, rounds: int, sent: Sequence[Recording]) -> dict[Key, list[Figures]]:
    found: dict[Key, list[Figures]] = {(side.name, one.name): [] for side in SIDES for one in side.clients}
    for number in range(rounds):
        # Who was first is last in the next round.
        turn = -1 if number % 2 else 1
        for side in SIDES[::turn]:
            with side.start() as server:
                _warm_up(server, sizes)
                for clients in side.clients[::turn]:
                    _say(f"round {number + 1} of {rounds}: {side.name}, {clients.name}")
                    one = _round(server, side, clients, sizes, sent)
                    _say(f"  {one.transcripts} of {one.recordings} in {one.took_s:.1f} s")
                    found[side.name, clients.name].append(one)
    return found


def _round(server: Server, side: Side, clients: Clients, sizes: Sizes, sent: Sequence[Recording]) -> Figures:
    with Peak(server) as peak:
        done = asyncio.run(ask_for_all(server.url, sent, sizes.clients, clients.ask))
    return figures(done, side.hears_s, peak.bytes)


def _killed(kill: Kill, sizes: Sizes, sent: Sequence[Recording]) -> Figures:
    """The kill comes with the transcript of a fifth of the recordings. There are no more clients than the
    seed takes, so that what fails, fails by the kill."""
    _say(f"kill -9 of {kill.name}: {kill.side.name}, {kill.clients.name}")
    with kill.side.start() as server:
        _warm_up(server, sizes)

        def strike(transcripts: int) -> None:
            if transcripts == max(1, len(sent) // 5):
                _say(f"  {server.kill(*kill.words)} killed after {transcripts} transcripts")

        clients = min(sizes.clients, SEED_TAKES)
        done = asyncio.run(ask_for_all(server.url, sent, clients, kill.clients.ask, strike))
    return figures(done, kill.side.hears_s, 0)


def _warm_up(server: Server, sizes: Sizes) -> None:
    """Short recordings, first one after another, then at once."""
    short = recordings(sizes.warm_up, WARM_UP_S)
    for clients in (1, len(short)):
        done = asyncio.run(ask_for_all(server.url, short, clients, transcribe_patiently))
        failed = [answer for answer in done.answers if answer.reply.text is None]
        if failed:
            raise RuntimeError(f"{failed[0]}; its log ends: {server.log.read_text()[-2000:]}")


def _answer_to_no_audio(side: Side) -> str:
    with side.start() as server:
        files = {"audio_file": ("broken.wav", NO_AUDIO, "audio/wav")}
        answer = httpx.post(f"{server.url}/transcribe", files=files, timeout=120, trust_env=False)
        return f"{answer.status_code} {answer.text.strip()}"


def _about(sizes: Sizes, rounds: int, sent: Sequence[Recording]) -> dict[str, str]:
    seconds = sorted(recording.seconds for recording in sent)
    long = sum(one > WINDOW_S for one in seconds)
    ours = ", ".join(f"`{name}={value}`" for name, value in OUR_SETTINGS.items())
    versions = {name: _bento_version(name) for name in ("bentoml", "torch", "transformers")}
    return {
        "Machine": f"{CORES} cores of {_processor()}, shared by clients and server; "
        f"Python {platform.python_version()}",
        "Recordings": f"{len(sent)} of {seconds[0]:.0f} to {seconds[-1]:.0f} s, together "
        f"{sum(seconds):.0f} s; {long} are longer than {WINDOW_S:.0f} s; WAV, 16 kHz",
        "Load": f"{sizes.clients} clients, "
        + ("one round" if rounds == 1 else f"the median of {rounds} rounds"),
        "Both": f"`models/synthetic-en` in float32, language found by the model, {THREADS} threads, the "
        f"allocator of `ananse up`; torch {versions['torch']}, transformers {versions['transformers']}",
        "BentoML": f"{versions['bentoml']}, `benchmarks/bento/service.py`. The seed: timeout 60 s, "
        f"max_concurrency {SEED_TAKES}. Batched: the model a service of its own, max_batch_size 8, timeout "
        "and max_latency 300 s",
        "Ananse": f"`ananse up`: Redis, API, one worker, Flower, as it comes but for {ours}",
    }


def _bento_version(package: str) -> str:
    """Of both sides: the pins are the same (a test holds us to it)."""
    ask = f"import importlib.metadata as m; print(m.version({package!r}))"
    return subprocess.run(
        (BENTO_PYTHON, "-c", ask), capture_output=True, text=True, check=True
    ).stdout.strip()


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return [*names, platform.machine()][0]


def _stay_on_two_cores() -> None:
    """This process and all that it starts."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
