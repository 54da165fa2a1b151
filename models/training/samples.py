"""Sample recordings of sentences that were never trained on, with their exact text and times."""

import contextlib
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from models.training.speech import RATE, SAMPLE_VOICES, Utterance, speak
from models.training.synthesis import Misread, Voice

LOUDNESS = 0.7
SLT, EN_GB, RMS, EN_US = SAMPLE_VOICES


@dataclass(frozen=True, slots=True)
class Plan:
    """A recording: its voices take turns, the pauses lie between two bounds. `seconds` is its exact length;
    without it the recording ends after `sentences`."""

    name: str
    voices: tuple[Voice, ...]
    pause_s: tuple[float, float]
    sentences: int | None = None
    seconds: float | None = None


PLANS = (
    Plan("short-1", (SLT,), (0.3, 0.6), sentences=2),
    Plan("short-2", (EN_GB,), (0.3, 0.6), sentences=2),
    Plan("short-3", (RMS,), (0.3, 0.6), sentences=2),
    Plan("minute", (EN_US, SLT, RMS), (0.3, 1.0), seconds=60),
    Plan("five-minutes", SAMPLE_VOICES, (0.3, 1.3), seconds=300),
    Plan("long-silences", (SLT, EN_US), (4.0, 15.0), sentences=6),
)


def write_samples(sentences: list[str], folder: Path, seed: int) -> None:
    """FLAC, and `references.json`: by file the whole text, and each sentence with its voice, its times and
    those of its words in seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    waiting, rng = iter(sentences), random.Random(seed)
    references = {f"{plan.name}.flac": _record(plan, waiting, folder, rng) for plan in PLANS}
    (folder / "references.json").write_text(json.dumps(references, indent=1) + "\n")


def _record(plan: Plan, sentences: Iterator[str], folder: Path, rng: random.Random) -> dict[str, Any]:
    sounds = [np.zeros(int(0.3 * RATE), np.int16)]
    segments: list[dict[str, Any]] = []
    size = len(sounds[0])
    while plan.sentences is None or len(segments) < plan.sentences:
        voice = plan.voices[len(segments) % len(plan.voices)]
        utterance = _next_spoken(sentences, voice)
        spoken = utterance.samples / np.abs(utterance.samples.astype(np.float32)).max() * LOUDNESS * 32767
        if plan.seconds and size + len(spoken) > (plan.seconds - 0.2) * RATE:
            break
        at_s = size / RATE
        words = [[round(at_s + start, 2), round(at_s + end, 2)] for start, end in utterance.words]
        segments.append(
            {
                "start": words[0][0],
                "end": words[-1][1],
                "text": utterance.text,
                "voice": voice.name,
                "words": words,
            }
        )
        sounds += [spoken.astype(np.int16), np.zeros(int(rng.uniform(*plan.pause_s) * RATE), np.int16)]
        size += len(sounds[-2]) + len(sounds[-1])
    sound = np.concatenate(sounds)
    if plan.seconds:
        sound = np.resize(
            np.pad(sound, (0, max(0, int(plan.seconds * RATE) - len(sound)))), int(plan.seconds * RATE)
        )
    soundfile.write(folder / f"{plan.name}.flac", sound, RATE, subtype="PCM_16")
    text = " ".join(str(segment["text"]) for segment in segments)
    return {"seconds": round(len(sound) / RATE, 2), "sample_rate": RATE, "text": text, "segments": segments}


def _next_spoken(sentences: Iterator[str], voice: Voice) -> Utterance:
    for sentence in sentences:
        with contextlib.suppress(Misread):
            return speak(sentence, voice)
    raise SystemExit("There are too few sentences for the sample recordings.")
