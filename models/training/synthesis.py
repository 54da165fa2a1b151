"""What a synthesiser is asked for and what it gives, whichever it is."""

import ctypes
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PHONES = """
    pau aa ae ah ao aw ax ay b ch d dh eh er ey f g hh ih iy jh k l m n ng ow oy p r s sh t th uh uw
    v w y z zh
""".split()
"""The phones of flite's English, the pause first. espeak-ng's are written with them, in its own file."""

Span = tuple[float, float]
"""Start and end in seconds."""


@dataclass(frozen=True, slots=True)
class Voice:
    """How a sentence is spoken. `speed` is words a minute for espeak-ng, a stretch of time for flite, which
    has neither `pitch` nor `range`."""

    engine: str
    name: str
    speed: float
    pitch: int = 50
    range: int = 50


@dataclass(frozen=True, slots=True)
class Said:
    """A sentence as the synthesiser gave it: pauses are not among its phones, and `words` has a span for
    each word of `text.split()`."""

    samples: NDArray[np.int16]
    rate: int
    phones: list[tuple[float, float, str]]
    words: list[Span]


class Misread(ValueError):
    """The synthesiser said something else than the words of the sentence."""


def library(name: str, package: str) -> ctypes.CDLL:
    """Raises SystemExit, with what to do, where it is missing."""
    try:
        return ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise SystemExit(
            f"{name} is missing: install {package} (Debian and Ubuntu: apt install {package})."
        ) from error
