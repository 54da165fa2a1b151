"""What makes clean speech harder: noise, rooms, other speeds, narrow bands, hidden stripes."""

import numpy as np

from models.training.corpus import Rng
from models.training.speech import FRAME, RATE


def faster(
    samples: np.ndarray, labels: np.ndarray, words: np.ndarray, factor: float
) -> tuple[np.ndarray, ...]:
    """Played at another speed, which makes another voice of it."""
    frames = int(len(labels) / factor)
    played = np.interp(np.arange(frames * FRAME) * factor, np.arange(len(samples)), samples).astype(
        np.float32
    )
    return played, labels[(np.arange(frames) * factor).astype(int)], words / factor


def disturbed(noises: "Noises", rng: Rng, sound: np.ndarray, has_speech: bool) -> np.ndarray:
    level = np.sqrt((sound**2).mean()) if has_speech else 10 ** (rng.uniform(-45, -12) / 20)
    if has_speech and rng.random() < 0.06:
        sound = _in_a_room(rng, sound)
    chance = rng.random()
    if chance < 0.3 or (not has_speech and chance < 0.85):
        noise = noises.any(rng, len(sound))
        sound = sound + noise * level * 10 ** (-rng.uniform(12 if has_speech else 0, 38) / 20)
    return sound


def _in_a_room(rng: Rng, sound: np.ndarray) -> np.ndarray:
    tail = int(rng.uniform(0.05, 0.25) * RATE)
    echo = rng.standard_normal(tail) * np.exp(-np.arange(tail) / tail * 6)
    echo *= rng.uniform(0.1, 0.4) / np.sqrt((echo**2).sum())
    echo[0] = 1.0
    size = 1 << (len(sound) + tail - 1).bit_length()
    return np.fft.irfft(np.fft.rfft(sound, size) * np.fft.rfft(echo, size), size)[: len(sound)].astype(
        np.float32
    )


def masks(rng: Rng, share: float, columns: int) -> list[tuple[int, int, int, int]]:
    """A narrow band like a telephone's, or a few stripes hidden."""
    chance = rng.random() / max(share, 1e-6)
    if chance < 0.05:
        return [(int(rng.integers(45, 70)), 80, 0, columns)]
    masks = []
    if chance < 0.35:
        for _ in range(2):
            band, column = int(rng.integers(72)), int(rng.integers(columns - 20))
            masks.append((band, band + int(rng.integers(1, 9)), 0, columns))
            masks.append((0, 80, column, column + int(rng.integers(1, 13))))
    return masks


class Noises:
    """A minute of each noise, of level one, to take pieces from: the first is white."""

    def __init__(self, seed: int) -> None:
        rng, size = np.random.default_rng(seed), 60 * RATE
        kinds = (_white, _pink, _brown, _hum, _hum, _music, _music, _music)
        self._minutes = [_of_level_one(kind(rng, size)) for kind in kinds]

    def any(self, rng: Rng, size: int, kind: int | None = None) -> np.ndarray:
        minute = self._minutes[rng.integers(len(self._minutes)) if kind is None else kind]
        start = int(rng.integers(len(minute) - size))
        return minute[start : start + size]


def _of_level_one(noise: np.ndarray) -> np.ndarray:
    return np.asarray(noise / noise.std(), np.float32)


def _white(rng: Rng, size: int) -> np.ndarray:
    return rng.standard_normal(size)


def _pink(rng: Rng, size: int) -> np.ndarray:
    spectrum = np.fft.rfft(rng.standard_normal(size))
    return np.fft.irfft(spectrum / np.maximum(np.arange(len(spectrum)), 1200) ** 0.5, size)


def _brown(rng: Rng, size: int) -> np.ndarray:
    spectrum = np.fft.rfft(rng.standard_normal(size))
    return np.fft.irfft(spectrum / np.maximum(np.arange(len(spectrum)), 1200), size)


def _hum(rng: Rng, size: int) -> np.ndarray:
    """Mains or motors: a low tone and its overtones, another every five seconds."""
    pieces = []
    for _ in range(0, size, 5 * RATE):
        time = np.arange(5 * RATE) / RATE * 2 * np.pi * rng.choice([50, 60, rng.uniform(40, 240)])
        pieces.append(
            sum(rng.uniform(0.1, 1) / k * np.sin(k * time + rng.uniform(0, 6)) for k in range(1, 8))
        )
    return np.concatenate(pieces)[:size]


def _music(rng: Rng, size: int) -> np.ndarray:
    """Chords and single notes that die away; beat and key change now and then."""
    tune, start = np.zeros(size), 0
    beat, key = 0.4, 150.0
    while start < size:
        if rng.random() < 0.1:
            beat, key = rng.uniform(0.15, 0.6), rng.uniform(80, 300)
        length = min(size - start, int(beat * RATE * rng.uniform(0.8, 3)))
        time = np.arange(length) / RATE
        for step in rng.choice([0, 2, 4, 5, 7, 9, 11, 12, 16, 19], rng.integers(1, 4)):
            tone = key * 2 ** (step / 12)
            note = sum(rng.uniform(0.2, 1) / k * np.sin(2 * np.pi * tone * k * time) for k in range(1, 5))
            tune[start : start + length] += note * np.exp(-time * rng.uniform(1, 6))
        start += int(beat * RATE)
    return tune
