"""The engine beside others: the same weights, recordings and two threads, all sides in one run.

    make bench                      the bundled model
    make bench BENCH="--shape base" random weights of that shape, as many tokens on every side
    make bench BENCH="--quick"      shows that all sides run; too small for figures

Each side is a process of its own that loads once, which is not counted. They take turns, so that whatever
else the machine does meets all of them; the median of the rounds counts. Sides are in `engine_sides`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jiwer
import soundfile

from benchmarks.shapes import SHAPES, write_shape
from benchmarks.words import plain

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "models" / "synthetic-en"
SAMPLES = ROOT / "models" / "samples"
WORK = ROOT / "var" / "bench"
SAMPLE_RATE = 16_000
THREADS = 2
TOKENS = 60
"""Of each window of random weights, on every side."""

REST_S = 0.5
"""Between two sides, for the threads of the one before to fall asleep."""

QUICK_CLIPS, QUICK_ROUNDS = 3, 1

OURS = ("ours",)
INT8 = ("ours-int8",)
"""With the encoder's matrices as faster-whisper has all of its own; only where the text means nothing."""
SEED = ("seed",)
TRANSFORMERS = ("generate-batched", "pipeline-long")
PEERS = ("faster-whisper", "faster-whisper-batched")
CPP = ("whisper.cpp",)
OPENVINO = ("openvino-int8", "openvino-fp32")


@dataclass(slots=True)
class Side:
    """A process that answers each line it reads with what a round took."""

    name: str
    process: subprocess.Popen[str]
    load_s: float = 0.0
    seconds: list[float] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def ask(self, line: str = "") -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if line:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        if answer := self.process.stdout.readline():
            told: dict[str, Any] = json.loads(answer)
            return told
        raise SystemExit(f"{self.name} ended early: see {WORK / (self.name + '.log')}")

    def round(self) -> None:
        told = self.ask("go")
        self.seconds.append(told["seconds"])
        self.texts = told["texts"]


def main() -> None:
    asked = _asked()
    WORK.mkdir(parents=True, exist_ok=True)
    model = write_shape(WORK / asked.shape, asked.shape) if asked.shape else MODEL
    for work, references in _works(asked).items():
        print(
            f"\n{work}: {len(references)} recordings, {asked.rounds} rounds, {THREADS} threads, {model.name}"
        )
        sides = _sides(asked, has_long_files=len(references) == 1)
        _compare(model, references, sides, asked)


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=list(SHAPES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--works", nargs="+", default=["many", "long"], choices=["many", "long"])
    parser.add_argument("--sides", nargs="+", help="some of them only")
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--dtype", default="auto", help="ours")
    parser.add_argument("--peers", type=Path, default=ROOT / "var" / "peers-venv" / "bin" / "python")
    parser.add_argument("--openvino", type=Path, default=ROOT / "var" / "openvino-venv" / "bin" / "python")
    asked = parser.parse_args()
    if asked.quick:
        asked.clips, asked.rounds = QUICK_CLIPS, QUICK_ROUNDS
    return asked


def _works(asked: argparse.Namespace) -> dict[str, dict[Path, str]]:
    """Recordings with what is said in them."""
    works = {}
    if "many" in asked.works:
        works["many files"] = dict(_clips(asked.clips))
    if "long" in asked.works and not asked.shape:
        told = json.loads((SAMPLES / "references.json").read_text())
        works["one long file"] = {SAMPLES / "five-minutes.flac": told["five-minutes.flac"]["text"]}
    return works


def _clips(count: int) -> Iterator[tuple[Path, str]]:
    """Sentences of the long recording, each a file."""
    name = "five-minutes.flac"
    sentences = json.loads((SAMPLES / "references.json").read_text())[name]["segments"]
    pcm, _ = soundfile.read(SAMPLES / name, dtype="int16")
    for number, sentence in enumerate(sentences[:count]):
        first, last = (int(max(0.0, sentence[edge]) * SAMPLE_RATE) for edge in ("start", "end"))
        path = WORK / f"clip-{number}.wav"
        soundfile.write(path, pcm[max(0, first - 3_200) : last + 3_200], SAMPLE_RATE)
        yield path, sentence["text"]


def _compare(
    model: Path, references: Mapping[Path, str], names: Sequence[str], asked: argparse.Namespace
) -> None:
    audio_s = sum(soundfile.info(path).duration for path in references)
    with ExitStack() as stack:
        sides = [stack.enter_context(_started(name, model, references, asked)) for name in names]
        for _ in range(asked.rounds):
            for side in sides:
                time.sleep(REST_S)
                side.round()
    ours = next((statistics.median(side.seconds) for side in sides if side.name in OURS), None)
    head = f"{'side':26}{'load s':>8}{'median s':>10}{'least':>8}{'most':>8}"
    print(head + f"{'x real time':>13}{'WER %':>8}{'ours is':>10}")
    for side in sides:
        rate = None if asked.shape else error_rate(list(references.values()), side.texts)
        print(row(side, audio_s, rate, ours), flush=True)
    if ours:
        print((WORK / f"{OURS[0]}.log").read_text().splitlines()[-1])


def row(side: Side, audio_s: float, rate: float | None, ours_s: float | None) -> str:
    """Of the table. The median of its rounds counts, and how many times ours it is."""
    median_s = statistics.median(side.seconds)
    errors = "" if rate is None else f"{rate:.1f}"
    ratio = f"{median_s / ours_s:.2f}x" if ours_s else ""
    return (
        f"{side.name:26}{side.load_s:8.1f}{median_s:10.2f}{min(side.seconds):8.2f}{max(side.seconds):8.2f}"
        f"{audio_s / median_s:13.1f}{errors:>8}{ratio:>10}"
    )


def _sides(asked: argparse.Namespace, *, has_long_files: bool) -> list[str]:
    # The seed and a batch hear the first thirty seconds of a file.
    names = [*OURS, TRANSFORMERS[1]] if has_long_files else [*OURS, *SEED, *TRANSFORMERS]
    names += INT8 if asked.shape else ()
    if asked.peers.exists():
        # Batches of three sizes: the best of them is the one to beat. whisper.cpp knows one vocabulary only.
        names += [PEERS[0], *(f"{PEERS[1]}-{size}" for size in (4, 8, 16)), *(() if asked.shape else CPP)]
    else:
        print(f"{asked.peers} is not there: run `make peers` first for faster-whisper and whisper.cpp.")
    if asked.openvino.exists():
        names += OPENVINO
    return [name for name in names if not asked.sides or name in asked.sides]


class _started:  # noqa: N801
    """A side, loaded and warm; ends with the block."""

    def __init__(
        self, name: str, model: Path, references: Mapping[Path, str], asked: argparse.Namespace
    ) -> None:
        python, env = sys.executable, dict(os.environ)
        if name.startswith((*PEERS, *CPP)):
            python = str(asked.peers)
        if name in OPENVINO:
            python = str(asked.openvino)
            # It dies of an allocator that is not its own.
            env.pop("LD_PRELOAD", None)
        plan = {
            "side": name,
            "model": str(model),
            "files": [str(path) for path in references],
            "threads": THREADS,
            "slots": asked.slots,
            "dtype": asked.dtype,
            "tokens": TOKENS if asked.shape else 0,
            "out": str(WORK / "converted" / model.name),
        }
        self._log = (WORK / f"{name}.log").open("w")
        process = subprocess.Popen(
            [python, "-m", "benchmarks.engine_sides", json.dumps(plan)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            cwd=ROOT,
            env=env,
        )
        self._side = Side(name, process)

    def __enter__(self) -> Side:
        self._side.load_s = self._side.ask()["load_s"]
        self._side.ask("go")  # Warm-up.
        return self._side

    def __exit__(self, *_: object) -> None:
        self._side.process.kill()
        self._side.process.wait()
        self._log.close()


def error_rate(said: Sequence[str], heard: Sequence[str]) -> float:
    """In percent, of all words together."""
    return 100 * float(jiwer.wer([plain(one) for one in said], [plain(one) or "-" for one in heard]))


if __name__ == "__main__":
    main()
