"""What a model's encoder may leave out, and its decoder keep in half: text, errors and time beside the whole.

    python -m benchmarks.shortcuts [--model FOLDER] [--samples FOLDER] [--clips N] 1.3s int8 float16+int8+1.3s

`samples` holds recordings and a `references.json` that says what is said in them and when, as that of
`models/samples` does; each sentence is a window. Processor time: other work beside disturbs it less.
"""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import soundfile
import torch

from benchmarks.engine import error_rate
from shared.models import ModelSource, parse_shortcuts
from worker.engine.encoder import Encoder
from worker.engine.loading import Loaded, load
from worker.engine.values import SAMPLE_RATE, DecodingOptions, Pcm, Window
from worker.engine.whisper import WhisperRunner

ROOT = Path(__file__).resolve().parents[1]
AROUND_S = 0.2
"""Heard on both sides of a sentence."""

SLOTS = 8
HALF = "float16"
"""The decoder's caches and matrices, in the compiled pass."""
BRAIN = "bfloat16"
"""The whole model. Where a processor does not multiply it the time says nothing; the text is the same."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shortcuts", nargs="*", default=["1.3s", "int8", "int8+1.3s"])
    parser.add_argument("--model", default=str(ROOT / "models" / "synthetic-en"))
    parser.add_argument("--samples", type=Path, default=ROOT / "models" / "samples")
    parser.add_argument("--clips", type=int, default=1_000, help="at most so many sentences")
    parser.add_argument("--language", default="en")
    asked = parser.parse_args()
    sentences = list(_sentences(asked.samples))[: asked.clips]
    source = ModelSource("model", asked.model)
    loaded = {
        dtype: load(source, device="cpu", dtype=dtype, threads=1, hf_endpoint=None)
        for dtype in ("float32", *({BRAIN} & {part for name in asked.shortcuts for part in name.split("+")}))
    }
    print(f"{len(sentences)} windows\n{'shortcuts':16}{'WER %':>8}{'other text':>12}{'processor s':>13}")
    whole: list[str] = []
    for name in ("none", *asked.shortcuts):
        one = loaded[BRAIN if BRAIN in name else "float32"]
        texts, took_s = _transcribed(one, name, [pcm for pcm, _ in sentences], asked.language)
        whole = whole or texts
        rate = error_rate([text for _, text in sentences], texts)
        print(f"{name:16}{rate:8.2f}{differing(whole, texts):12}{took_s:13.1f}", flush=True)


def differing(whole: Sequence[str], texts: Sequence[str]) -> int:
    return sum(one != other for one, other in zip(whole, texts, strict=True))


def _sentences(samples: Path) -> Iterator[tuple[Pcm, str]]:
    for name, told in json.loads((samples / "references.json").read_text()).items():
        pcm, rate = soundfile.read(samples / name, dtype="int16")
        if rate != SAMPLE_RATE:
            raise SystemExit(f"{name} has {rate} samples a second, and should have {SAMPLE_RATE}")
        for sentence in told["segments"]:
            first = max(0, int((sentence["start"] - AROUND_S) * SAMPLE_RATE))
            yield pcm[first : int((sentence["end"] + AROUND_S) * SAMPLE_RATE)], sentence["text"]


def _transcribed(
    loaded: Loaded, shortcuts: str, sounds: Sequence[Pcm], language: str
) -> tuple[list[str], float]:
    options = DecodingOptions(language=language, temperatures=(0.0,))
    windows = [Window(number, 0.0, pcm, len(pcm) / SAMPLE_RATE, options) for number, pcm in enumerate(sounds)]
    left = [part for part in shortcuts.split("+") if part not in (HALF, BRAIN)]
    wanted = parse_shortcuts("+".join(left) or "none")
    changed = replace(loaded, short=Encoder(loaded.model, wanted) if wanted else None)
    if HALF in shortcuts:
        changed = replace(changed, kept=torch.float16)
    runner = WhisperRunner(changed, SLOTS)
    # Whatever it does to the text: that is what is to be seen.
    runner.use_shortcuts()
    runner.run(windows[:1])
    began = time.process_time()
    texts = [found.text for found in runner.run(windows)]
    return texts, time.process_time() - began


if __name__ == "__main__":
    main()
