"""What is fastest on this machine, tried out for a moment at start."""

import time

import torch

ROUNDS = 5
SHAPE = (1_500, 512, 2_048)
"""Positions, width and inner width of an encoder's widest product, in the shape of base."""

MARGIN = 1.1
"""So much faster the other must be: numbers with fewer digits are not for nothing."""


def faster(known: torch.dtype, other: torch.dtype) -> torch.dtype:
    """`other` if this processor multiplies it clearly faster, else `known`."""
    return other if seconds(known) > MARGIN * seconds(other) else known


def seconds(dtype: torch.dtype) -> float:
    """Least of a few rounds: what disturbs them only makes them longer."""
    positions, width, inner = SHAPE
    with torch.inference_mode():
        sound, weight = torch.ones(positions, width, dtype=dtype), torch.ones(inner, width, dtype=dtype)
        return min(_timed(sound, weight) for _ in range(ROUNDS))


def _timed(sound: torch.Tensor, weight: torch.Tensor) -> float:
    began = time.perf_counter()
    torch.nn.functional.linear(sound, weight)
    return time.perf_counter() - began
