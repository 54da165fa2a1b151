"""Builds, checks and times the engine on a card in one go, and prints one table: minutes, not hours.

    python -m benchmarks.gpu [--device cuda] [--shapes large-v3-turbo large-v3] [--slots 1 8 32 64]

Random weights of Whisper's shapes, as many tokens for each window on both sides. The check: in float32, the
slots of the card write what Transformers' `generate` writes there. `in turns` is real time without a stream
for the encoder alone.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration

from benchmarks.shapes import write_shape
from shared.models import ModelSource
from worker.engine import decoding
from worker.engine.listening import encode
from worker.engine.values import SAMPLE_RATE, WINDOW_SAMPLES, WINDOW_SECONDS, DecodingOptions, Window
from worker.engine.whisper import ENCODED_AT_ONCE, WhisperRunner, load_runner

ROOT = Path(__file__).parents[1]
WORK = ROOT / "var" / "bench"
GREEDY = DecodingOptions(language="en", temperatures=(0.0,))
CHECKED = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--shapes", nargs="+", default=["tiny", "large-v3-turbo", "large-v3"])
    parser.add_argument("--slots", nargs="+", type=int, default=[1, 8, 32, 64])
    parser.add_argument("--tokens", type=int, default=120)
    asked = parser.parse_args()
    decoding.TOKENS_AT_LEAST, decoding.TOKENS_PER_SECOND = asked.tokens, 0
    head = (
        f"{'shape':16}{'slots':>6}{'x real time':>13}{'in turns':>10}{'encode ms':>11}{'step ms':>9}{'MB':>8}"
    )
    print(head + f"{'generate x':>12}")
    for number, shape in enumerate(asked.shapes):
        folder = write_shape(WORK / shape, shape)
        if number == 0:
            _check(folder, asked)
        for slots in asked.slots:
            _row(shape, folder, slots, asked)


def _check(folder: Path, asked: argparse.Namespace) -> None:
    ours = _runner(folder, CHECKED, asked.device, "float32").run(_windows(CHECKED))
    theirs = _generate(folder, CHECKED, asked, torch.float32)()
    for one, tokens in zip(ours, theirs, strict=True):
        same = next(
            (i for i, pair in enumerate(zip(one.tokens, tokens, strict=False)) if len(set(pair)) > 1), None
        )
        if same is not None:
            raise SystemExit(f"{folder.name}: token {same} differs from that of generate")
    print(f"{folder.name}: {CHECKED} windows as generate in float32")


def _row(shape: str, folder: Path, slots: int, asked: argparse.Namespace) -> None:
    runner = _runner(folder, slots, asked.device, asked.dtype)
    windows = _windows(2 * slots)
    runner.run(windows[:slots])
    encode_s, step_s = _encode_s(runner, windows), _step_s(runner, windows[:slots])
    took_s = _seconds(lambda: runner.run(windows), asked.device)
    runner._hearing._stream = None
    in_turns_s = _seconds(lambda: runner.run(windows), asked.device)
    dtype = getattr(torch, runner.card.dtype)
    memory = torch.cuda.max_memory_reserved() / 2**20 if asked.device.startswith("cuda") else 0.0
    runner.close()
    generate = _generate(folder, slots, asked, dtype)
    generate()
    theirs_s = _seconds(generate, asked.device)
    audio_s = WINDOW_SECONDS * slots
    print(
        f"{shape:16}{slots:6}{2 * audio_s / took_s:13.0f}{2 * audio_s / in_turns_s:10.0f}"
        f"{encode_s * 1e3:11.1f}{step_s * 1e3:9.2f}"
        f"{memory:8.0f}{audio_s / theirs_s:12.0f}",
        flush=True,
    )


def _runner(folder: Path, slots: int, device: str, dtype: str) -> WhisperRunner:
    return load_runner(
        ModelSource(folder.name, str(folder)), device=device, dtype=dtype, threads=0, batch_size=slots
    )


def _windows(count: int) -> list[Window]:
    noise = np.random.default_rng(0).normal(0, 1_000, (count, WINDOW_SAMPLES)).astype(np.int16)
    return [Window(number, 0.0, pcm, WINDOW_SECONDS, GREEDY) for number, pcm in enumerate(noise)]


def _encode_s(runner: WhisperRunner, windows: list[Window]) -> float:
    """Seconds for each, several in one pass and with nothing beside."""
    model, mel = runner._loaded.model, runner._loaded.mel
    sounds = [window.pcm for window in windows[:ENCODED_AT_ONCE]]
    with torch.inference_mode():
        return _seconds(lambda: encode(model, mel, sounds), str(model.device)) / len(sounds)


def _step_s(runner: WhisperRunner, windows: list[Window]) -> float:
    """Seconds of a step with all slots in use."""
    for number, window in enumerate(windows):
        runner.seat(number, window)
    while runner._coming:
        runner.step()
    # On a card a step reads what the one before chose, so that everything up to there has happened.
    runner.step()
    runner.step()
    began, steps = time.perf_counter(), 0
    while not runner.step():
        steps += 1
    took_s = time.perf_counter() - began
    for number in range(len(windows)):
        runner.unseat(number)
    return took_s / max(1, steps)


def _generate(
    folder: Path, count: int, asked: argparse.Namespace, dtype: torch.dtype
) -> Callable[[], list[Any]]:
    model = WhisperForConditionalGeneration.from_pretrained(folder, dtype=dtype).to(asked.device).eval()
    mel = WhisperFeatureExtractor.from_pretrained(folder)
    sounds = [window.pcm / 32768.0 for window in _windows(count)]
    start = model.generation_config.no_timestamps_token_id + 1

    def run() -> list[Any]:
        features = mel(sounds, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features
        with torch.inference_mode():
            written = model.generate(
                features.to(asked.device, dtype),
                language="en",
                task="transcribe",
                return_timestamps=True,
                force_unique_generate_call=True,
                max_new_tokens=asked.tokens,
                suppress_tokens=[*range(model.generation_config.eos_token_id, start)],
            )
        return [row[3:] for row in written.tolist()]

    return run


def _seconds(act: Callable[[], object], device: str) -> float:
    began = time.perf_counter()
    act()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
