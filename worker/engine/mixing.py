"""Two channels become one. Of the decoder's two lanes, half sum and half difference, one is chosen."""

import numpy as np

from worker.engine.decoder.protocol import LANES

CANCELLED = 10.0
"""How many times as strong as the sum of two channels their difference must be for the sum to be given up."""


class Mix:
    """Chooses between sum and difference of two channels, chunk by chunk.

    The plain sum of a recording with one channel wired the wrong way round is silence.
    """

    def __init__(self) -> None:
        self._lane = 0
        self.was_cancelled = False

    def mono(self, samples: bytes) -> bytes:
        lanes = np.frombuffer(samples, np.int16).reshape(-1, LANES)
        power = np.square(lanes, dtype=np.float32).sum(axis=0)
        other = 1 - self._lane
        if power[other] > CANCELLED * power[self._lane]:
            self._lane = other
            self.was_cancelled |= other == 1
        return lanes[:, self._lane].tobytes()

    def warnings(self) -> tuple[str, ...]:
        if self.was_cancelled:
            return ("opposite_phase: the channels cancel each other, their difference was used",)
        return ()
