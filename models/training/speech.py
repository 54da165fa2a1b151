"""Sentences spoken by espeak-ng and flite, with the exact time of every word and every phone.

Both are called as libraries in this process: no program is started for a sentence. A shard is three files:
`NNNN.raw` (int16 samples, 16 kHz, one utterance after another), `NNNN.phones` (a phone of `PHONES` for every
frame of 20 ms, one byte each) and `NNNN.json` (the utterances). An utterance begins on a frame and has whole
frames.
"""

import json
import random
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import soxr
from numpy.typing import NDArray

from models.training.espeak import Espeak
from models.training.flite import Flite
from models.training.synthesis import PHONES, Misread, Span, Voice

RATE = 16000
FRAME = RATE // 50
FRAMES_PER_S = RATE / FRAME
SHARD = 500
SHORTEST_S, LONGEST_S = 0.4, 12.0
EDGE_S = 0.04
"""Kept before the first and after the last phone."""


@dataclass(frozen=True, slots=True)
class Utterance:
    """`phones` has a number of `PHONES` for each frame; `words` a span for each word of `text.split()`."""

    text: str
    samples: NDArray[np.int16]
    phones: NDArray[np.uint8]
    words: list[Span]
    voice: str


_ACCENTS = ("en-us", "en-us", "en-us", "en", "en", "en-gb-x-rp", "en-us-nyc", "en-gb-scotland", "en-029")
"""Of espeak-ng; `en` is British."""
_VARIANTS = (
    "", "", "", "m1", "m2", "m3", "m4", "m6", "m7", "m8", "f1", "f2", "f4", "f5", "Andy", "Annie", "Lee",
    "Mario", "adam", "anika", "aunty", "belinda", "boris", "david", "edward", "john", "linda", "max",
    "michel", "paul", "rob", "robert", "steph", "travis", "victor", "zac", "klatt", "klatt2", "klatt4",
    "grandma", "grandpa",
)  # fmt: skip
_FLITE = ("slt", "slt", "slt", "rms", "rms", "rms", "kal16", "kal16", "kal")
UNHEARD_VARIANTS = ("m5", "f3")
UNHEARD_FLITE = ("awb",)
SAMPLE_VOICES = (
    Voice("flite", "slt", 1.0),
    Voice("espeak", "en", 155),
    Voice("flite", "rms", 1.0),
    Voice("espeak", "en-us", 155),
)


def any_voice(rng: random.Random, flite_share: float = 0.4) -> Voice:
    """One of the voices that the model is trained on."""
    if rng.random() < flite_share:
        return Voice("flite", rng.choice(_FLITE), round(rng.uniform(0.85, 1.2), 2))
    return _espeak_voice(rng, _VARIANTS)


def unheard_voice(rng: random.Random) -> Voice:
    """Half of them a flite voice, half espeak-ng variants, all kept out of training."""
    if rng.random() < 0.5:
        return Voice("flite", rng.choice(UNHEARD_FLITE), round(rng.uniform(0.9, 1.15), 2))
    return _espeak_voice(rng, UNHEARD_VARIANTS)


def _espeak_voice(rng: random.Random, variants: tuple[str, ...]) -> Voice:
    variant = rng.choice(variants)
    name = rng.choice(_ACCENTS) + (f"+{variant}" if variant else "")
    return Voice("espeak", name, rng.randint(130, 200), rng.randint(30, 70), rng.randint(35, 70))


def speak(text: str, voice: Voice) -> Utterance:
    """At 16 kHz, without the silence around it. Raises Misread where the sentence is not said as written, or
    takes too short or too long."""
    said = _espeak().say(text, voice) if voice.engine == "espeak" else _flite().say(text, voice)
    if not said.phones:
        raise Misread(f"Nothing was said for {text!r}.")
    begin = max(0.0, said.phones[0][0] - EDGE_S)
    end = min(len(said.samples) / said.rate, said.phones[-1][1] + EDGE_S)
    if not SHORTEST_S <= end - begin <= LONGEST_S:
        raise Misread(f"{text!r} takes {end - begin:.1f} s.")
    cut = said.samples[int(begin * said.rate) : int(end * said.rate)].astype(np.float32)
    heard = soxr.resample(cut, said.rate, RATE, "MQ") if said.rate != RATE else cut
    frames = -(-len(heard) // FRAME)
    heard = np.pad(heard, (0, frames * FRAME - len(heard)))
    phones = np.zeros(frames, np.uint8)
    for start, stop, phone in said.phones:
        phones[round((start - begin) * FRAMES_PER_S) : round((stop - begin) * FRAMES_PER_S)] = PHONES.index(
            phone
        )
    words = [(round(max(0.0, start - begin), 2), round(stop - begin, 2)) for start, stop in said.words]
    return Utterance(text, np.clip(heard, -32768, 32767).astype(np.int16), phones, words, voice.name)


# A process has one of each: the libraries keep state.
_espeak = cache(Espeak)
_flite = cache(Flite)


def write_shards(
    sentences: list[str], folder: Path, voice: Callable[[random.Random], Voice], seed: int, processes: int
) -> None:
    """Speak every sentence once. Shards that are there already stay, so a run that was stopped goes on."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)
    spoken = [(sentence, voice(rng)) for sentence in sentences]
    jobs = [(folder / f"{i // SHARD:04d}", spoken[i : i + SHARD]) for i in range(0, len(spoken), SHARD)]
    missing = [job for job in jobs if not job[0].with_suffix(".json").exists()]
    said_s = 0.0
    with ProcessPoolExecutor(processes) as pool:
        for done, (path, seconds) in enumerate(pool.map(_write_shard, missing), 1):
            said_s += seconds
            print(f"{path}: {done} of {len(missing)} shards, {said_s / 3600:.2f} h of speech", flush=True)


def _write_shard(job: tuple[Path, list[tuple[str, Voice]]]) -> tuple[Path, float]:
    path, spoken = job
    frame, utterances = 0, []
    with path.with_suffix(".raw").open("wb") as sound, path.with_suffix(".phones").open("wb") as phones:
        for utterance in _spoken(spoken):
            sound.write(utterance.samples.tobytes())
            phones.write(utterance.phones.tobytes())
            utterances.append(
                {
                    "frame": frame,
                    "frames": len(utterance.phones),
                    "text": utterance.text,
                    "voice": utterance.voice,
                    "words": [edge for span in utterance.words for edge in span],
                }
            )
            frame += len(utterance.phones)
    path.with_suffix(".part").write_text(json.dumps(utterances))
    path.with_suffix(".part").rename(path.with_suffix(".json"))
    return path, frame * FRAME / RATE


def _spoken(spoken: Iterable[tuple[str, Voice]]) -> Iterator[Utterance]:
    for text, voice in spoken:
        try:
            yield speak(text, voice)
        except Misread:
            continue  # a few in ten thousand: a word the synthesiser reads in its own way
