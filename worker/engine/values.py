"""The engine's values: sound, spans of it, windows to run, and what the model made of them.

Positions are samples at 16 kHz inside the engine and seconds at its edges.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from shared.models import Abilities, ModelCard
from shared.transcript import Word

__all__ = [
    "SAMPLE_RATE",
    "WINDOW_SAMPLES",
    "WINDOW_SECONDS",
    "Abilities",
    "DecodingOptions",
    "Detector",
    "Ended",
    "Hypothesis",
    "ModelCard",
    "ModelUnavailable",
    "Pcm",
    "Runner",
    "Span",
    "Utterance",
    "Window",
]

SAMPLE_RATE = 16_000
WINDOW_SECONDS = 30
WINDOW_SAMPLES = WINDOW_SECONDS * SAMPLE_RATE

Pcm = NDArray[np.int16]
"""Mono samples at SAMPLE_RATE."""


@dataclass(frozen=True, slots=True)
class Span:
    """Speech from sample `start` to sample `end` (exclusive)."""

    start: int
    end: int

    @property
    def samples(self) -> int:
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class DecodingOptions:
    """How a window is to be decoded. Windows in one pass need not have equal ones.

    `temperatures` are tried in order until the result is good enough; `language` None means detect.
    """

    language: str | None = None
    task: Literal["transcribe", "translate"] = "transcribe"
    word_timestamps: bool = False
    prompt: str | None = None
    temperatures: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """At most WINDOW_SECONDS of sound, the unit of work. `start_s` is where it lies in its file;
    `speech_s` is how much of it the detector took for speech."""

    index: int
    start_s: float
    pcm: Pcm
    speech_s: float
    options: DecodingOptions

    @property
    def duration_s(self) -> float:
        return len(self.pcm) / SAMPLE_RATE


@dataclass(frozen=True, slots=True)
class Utterance:
    """A stretch of text between two timestamps of the model, in seconds from the window's start. `logprobs`
    belong to `tokens`."""

    start: float
    end: float
    text: str
    tokens: tuple[int, ...]
    avg_logprob: float
    words: tuple[Word, ...] | None = None
    logprobs: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """What the model made of one window. `inference_s` is the window's share of its passes' time."""

    utterances: tuple[Utterance, ...]
    language: str | None
    language_probability: float | None
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float
    temperature: float
    tokens: tuple[int, ...] = ()
    inference_s: float = 0.0

    @property
    def text(self) -> str:
        return "".join(utterance.text for utterance in self.utterances).strip()


class ModelUnavailable(Exception):
    """The model cannot be loaded; the message is one sentence for the operator and says what to do."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A window that a runner is done with, by the number it was seated with."""

    number: int
    hypothesis: Hypothesis


class Runner(Protocol):
    """Turns windows into hypotheses, several at once in slots. Called from one thread only.

    After `step` has raised, nothing that it left behind counts: its caller unseats all windows.
    """

    card: ModelCard

    def seat(self, number: int, window: Window) -> None:
        """Takes in a window, which has its part in every step until it has ended. Its options are its own.
        Raises when it can never be run."""
        ...

    def step(self, urgent: Collection[int] = ()) -> list[Ended]:
        """One pass over all that are seated: short, so that others may come and go in between. Where that is
        less work, over the `urgent` among them alone. Raises MemoryError when it does not fit."""
        ...

    def unseat(self, number: int) -> None:
        """Forgets a window; one that is not seated is no mistake."""
        ...

    def resize(self, slots: int) -> None:
        """So many windows at most from now on, no fewer than are seated. Raises MemoryError."""
        ...

    def close(self) -> None:
        """Gives back its memory; it is not used again."""
        ...


class Detector(Protocol):
    """Finds speech in a stream of sound, block after block; holds the state of one file."""

    def feed(self, pcm: Pcm, *, last: bool = False) -> list[Span]:
        """Spans that are certain by now, in file samples, in order, without overlap."""
        ...
