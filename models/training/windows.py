"""Windows of speech as Whisper sees them, mixed on the fly: sound, targets, true times.

A batch is a function of (seed, step) alone, so a run that was stopped goes on exactly as it would have.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import WhisperFeatureExtractor, WhisperTokenizer

from models.training.corpus import Corpus, Rng
from models.training.disturbance import Noises, disturbed, faster, masks
from models.training.speech import EDGE_S, FRAME
from models.training.targets import FRAME_S, NO_TARGET, NOWHERE, POSITIONS, Placed, Targets

LENGTH_STEP = 16
MARGIN = 2
"""Frames at the end of a window that no whole sentence reaches into."""


@dataclass(frozen=True, slots=True)
class Stage:
    """What the windows of one part of the training are like; the shares are probabilities."""

    hours: float
    """Of audio heard before the next stage begins."""
    window_s: float
    batch: int
    timestamps: float
    prompt: float = 0.0
    cut: float = 0.0
    """A window that ends in the middle of a sentence."""
    disturbed: float = 1.0
    """Scales noise, rooms, narrow bands, masks and changes of speed."""

    @property
    def is_full(self) -> bool:
        return self.window_s * 50 >= POSITIONS


class Mel:
    """The numbers of `WhisperFeatureExtractor`, for a batch at once and on any device."""

    def __init__(self, device: str) -> None:
        extractor = WhisperFeatureExtractor()
        self._n_fft, self._hop = extractor.n_fft, extractor.hop_length
        self._filters = torch.tensor(extractor.mel_filters.T, dtype=torch.float32, device=device).contiguous()
        self._window = torch.hann_window(self._n_fft, device=device)

    def __call__(self, sound: torch.Tensor) -> torch.Tensor:
        """(batch, samples) to (batch, bands, 100 a second)."""
        spectrum = torch.stft(sound, self._n_fft, self._hop, window=self._window, return_complex=True)[
            ..., :-1
        ]
        power = self._filters @ (spectrum.real**2 + spectrum.imag**2)
        log = power.clamp_(min=1e-10).log10_()
        log = torch.maximum(log, log.amax((1, 2), keepdim=True) - 8.0)
        return (log + 4.0) / 4.0


class Windows(Dataset[dict[str, Any]]):
    """The batches of a stage, by step. Keys: sound (batch, samples), offset, inputs, targets and when (batch,
    tokens), phones (batch, frames), masks (row, first band, last band, first column, last column)."""

    def __init__(self, corpus: Corpus, tokenizer: WhisperTokenizer, stage: Stage, seed: int) -> None:
        self._corpus, self._stage, self._seed = corpus, stage, seed
        self._targets, self._noises = Targets(tokenizer, corpus), Noises(seed)

    def __getitem__(self, step: int) -> dict[str, Any]:
        rng, stage = np.random.default_rng((self._seed, step)), self._stage
        frames = int(stage.window_s * 50)
        # Short windows lie anywhere in the thirty seconds, so that every position is learned.
        offset = 0 if stage.is_full or rng.random() < 0.3 else int(rng.integers(POSITIONS - frames + 1))
        rows = [self._window(rng, frames, offset) for _ in range(stage.batch)]
        # Few different lengths, or the allocator's memory falls to pieces.
        length = -(-max(len(row["inputs"]) for row in rows) // LENGTH_STEP) * LENGTH_STEP
        padding = {"inputs": self._targets.end, "targets": NO_TARGET, "when": NOWHERE}
        batch: dict[str, Any] = {
            name: torch.tensor([row[name] + [pad] * (length - len(row[name])) for row in rows])
            for name, pad in padding.items()
        }
        batch["sound"] = torch.from_numpy(np.stack([row["sound"] for row in rows]))
        batch["phones"] = torch.from_numpy(np.stack([row["phones"] for row in rows]))
        batch["offset"] = offset
        batch["masks"] = [
            (i, *mask) for i in range(stage.batch) for mask in masks(rng, stage.disturbed, 2 * frames)
        ]
        return batch

    def _window(self, rng: Rng, frames: int, offset: int) -> dict[str, Any]:
        sound, phones, placed, cut_s = self._mixed(rng, frames)
        if rng.random() < self._stage.disturbed:
            sound = disturbed(self._noises, rng, sound, bool(placed))
        if rng.random() < 0.75:
            sound = sound + self._noises.any(rng, len(sound), 0) * 10 ** (-rng.uniform(60, 90) / 20)
        with_times = cut_s is not None or rng.random() < self._stage.timestamps
        inputs, targets, when = self._targets.of(rng, placed, cut_s, offset, with_times, self._stage.prompt)
        return {
            "sound": np.clip(sound, -1, 1).astype(np.float32),
            "phones": phones,
            "inputs": inputs,
            "targets": targets,
            "when": when,
        }

    def _mixed(self, rng: Rng, frames: int) -> tuple[np.ndarray, np.ndarray, list[Placed], float | None]:
        """Some utterances with pauses between them, each beginning on a frame."""
        sound, phones = np.zeros(frames * FRAME, np.float32), np.zeros(frames, np.int64)
        placed: list[Placed] = []
        if rng.random() < 0.03:
            return sound, phones, placed, None
        at = int(
            50 * (rng.uniform(0, 0.6) if rng.random() < 0.85 else rng.uniform(0.6, min(6, frames / 150)))
        )
        wanted = rng.choice([1, 2, 4, 8, 20, 20, 20] if self._stage.is_full else [1, 2, 3, 3, 3])
        may_cut = rng.random() < self._stage.cut
        one_voice = rng.random() < 0.5
        gain = 10 ** (rng.uniform(-16, 0) / 20)
        voice, refused = None, 0
        while len(placed) < wanted and refused < 4:
            index = self._corpus.any(rng, voice if one_voice else None)
            voice = self._corpus.voice(index)
            samples, labels, words = self._corpus.sound(index)
            if rng.random() < 0.25 * self._stage.disturbed:
                samples, labels, words = faster(samples, labels, words, rng.uniform(0.88, 1.14))
            samples = samples / (np.abs(samples).max() + 1e-6) * 0.9 * gain * 10 ** (rng.uniform(-3, 0) / 20)
            room = frames - MARGIN - at
            if len(labels) > room:
                if may_cut and placed and room > 50:
                    kept = min(len(labels), room + MARGIN)
                    sound[at * FRAME : (at + kept) * FRAME] += samples[: kept * FRAME]
                    phones[at : at + kept] = labels[:kept]
                    return sound, phones, placed, at * FRAME_S + EDGE_S
                refused += 1
                at = min(at, 20) if not placed else at
                continue
            sound[at * FRAME : (at + len(labels)) * FRAME] += samples
            phones[at : at + len(labels)] = labels
            start_s = at * FRAME_S
            placed.append(
                Placed(
                    self._corpus.text(index), start_s + words[0, 0], start_s + words[-1, 1], start_s + words
                )
            )
            at += len(labels) + int(
                50 * (rng.uniform(0.05, 0.9) if rng.random() < 0.88 else rng.uniform(0.9, 6))
            )
        return sound, phones, placed, None
