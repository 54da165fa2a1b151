"""Seeded mutants of media files: every bit is flipped with a small probability, as zzuf does it."""

import random
from collections.abc import Iterator
from itertools import cycle
from math import log

RATIOS = (0.0001, 0.0004, 0.002, 0.004, 0.01, 0.05)


def mutants(seeds: dict[str, bytes], count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """So many mutants of the files in turn, each with its name; the same ones for the same `seed`."""
    ratios = cycle(RATIOS)
    names = cycle(sorted(name for name, content in seeds.items() if content))
    for number in range(count):
        name, ratio = next(names), next(ratios)
        yield f"{name}~{seed + number}@{ratio}", mutant(seeds[name], seed + number, ratio)


def mutant(content: bytes, seed: int, ratio: float) -> bytes:
    """At least one bit differs."""
    chance = random.Random(seed)
    changed = bytearray(content)
    bits = 8 * len(content)
    at = chance.randrange(bits)
    changed[at // 8] ^= 1 << at % 8
    # From flip to flip: the gaps between rare events, not a throw for every bit.
    at = -1
    while (at := at + 1 + int(log(1.0 - chance.random()) / log(1.0 - ratio))) < bits:
        changed[at // 8] ^= 1 << at % 8
    return bytes(changed)
