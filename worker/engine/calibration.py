"""What is fastest on this machine, tried out for a moment at start."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import torch

from worker.engine.encoder import packed_int8
from worker.engine.text_decoder import Decoder
from worker.engine.values import Pcm

ROUNDS = 5
SHAPE = (500, 512, 2_048)
"""Positions of ten seconds, width and inner width of an encoder's widest product, in the shape of base."""

RECORDING = Path(__file__).parents[2] / "models" / "samples" / "short-1.flac"

MARGIN = 1.1
"""So much faster the other must be: numbers with fewer digits are not for nothing."""


def recording() -> Pcm | None:
    """Real speech, in English; what a model for another language makes of it is a trial all the same."""
    try:
        pcm, _ = soundfile.read(RECORDING, dtype="int16")
    except (OSError, soundfile.SoundFileError):
        return None
    return np.asarray(pcm, dtype=np.int16)


def is_int8_faster(*, is_one_length: bool = False) -> bool:
    """Whether this processor multiplies int8 clearly faster than float32, factors and all; as `packed_int8`
    does it."""
    if "x86" not in torch.backends.quantized.supported_engines:
        return False
    positions, width, inner = SHAPE
    with torch.inference_mode():
        sound, weight = torch.ones(positions, width), torch.ones(inner, width)
        product = packed_int8(weight, torch.zeros(inner), is_one_length=is_one_length)
        quick = min(_timed(lambda: product(sound)) for _ in range(ROUNDS))
    return seconds(torch.float32) > MARGIN * quick


def faster(known: torch.dtype, other: torch.dtype) -> torch.dtype:
    """`other` if this processor multiplies it clearly faster, else `known`."""
    return other if seconds(known) > MARGIN * seconds(other) else known


def step_s(decoder: Decoder) -> float:
    """Of one more token in all of its slots, once it has been compiled."""
    tokens, positions = torch.zeros(decoder.slots).long(), torch.arange(decoder.slots)
    with torch.inference_mode():
        decoder.step(tokens, positions, decoder.slots)
        return min(_timed(lambda: decoder.step(tokens, positions, decoder.slots)) for _ in range(ROUNDS))


def seconds(dtype: torch.dtype) -> float:
    """Least of a few rounds: what disturbs them only makes them longer."""
    positions, width, inner = SHAPE
    with torch.inference_mode():
        sound, weight = torch.ones(positions, width, dtype=dtype), torch.ones(inner, width, dtype=dtype)
        return min(_timed(lambda: torch.nn.functional.linear(sound, weight)) for _ in range(ROUNDS))


def _timed(multiply: Callable[[], object]) -> float:
    began = time.perf_counter()
    multiply()
    return time.perf_counter() - began
