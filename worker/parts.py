"""A part's audio between `prepare` and its worker: windows end to end in one FLAC, silence left out."""

import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import soundfile

from worker.engine.values import SAMPLE_RATE, DecodingOptions, Window
from worker.engine.windows import Cut


@dataclass(frozen=True, slots=True)
class Part:
    """`layout` has a row (window index, start in the file in s, samples, speech in s) for each window."""

    layout: tuple[tuple[int, float, int, float], ...]

    @property
    def seconds(self) -> float:
        return sum(samples for _, _, samples, _ in self.layout) / SAMPLE_RATE

    def to_json(self) -> str:
        return json.dumps({"layout": self.layout})

    @classmethod
    def from_json(cls, text: str) -> "Part":
        rows = json.loads(text)["layout"]
        return cls(tuple((int(index), start, int(samples), speech) for index, start, samples, speech in rows))


def group(cuts: Iterable[Cut], part_s: float) -> Iterator[list[Cut]]:
    """Windows in parts of about `part_s` seconds of audio, in order."""
    part: list[Cut] = []
    seconds = 0.0
    for cut in cuts:
        part.append(cut)
        seconds += len(cut.pcm) / SAMPLE_RATE
        if seconds >= part_s:
            yield part
            part, seconds = [], 0.0
    if part:
        yield part


def encode(cuts: Sequence[Cut], offset_s: float) -> tuple[Part, bytes]:
    """The part and its FLAC; `offset_s` is where in the file the decoded audio begins."""
    file = io.BytesIO()
    soundfile.write(
        file, np.concatenate([cut.pcm for cut in cuts]), SAMPLE_RATE, format="FLAC", subtype="PCM_16"
    )
    layout = tuple(
        (cut.index, round(offset_s + cut.start / SAMPLE_RATE, 4), len(cut.pcm), round(cut.speech_s, 3))
        for cut in cuts
    )
    return Part(layout), file.getvalue()


def decode(part: Part, flac: bytes, options: DecodingOptions) -> list[Window]:
    pcm, _ = soundfile.read(io.BytesIO(flac), dtype="int16")
    windows = []
    at = 0
    for index, start_s, samples, speech_s in part.layout:
        windows.append(Window(index, start_s, pcm[at : at + samples], speech_s, options))
        at += samples
    return windows
