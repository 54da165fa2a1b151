"""From sound to what the decoder reads: mel, one encoder pass per window, and what its first step tells."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worker.engine.doctor import Tokens
from worker.engine.encoder import Encoder, Pass
from worker.engine.values import SAMPLE_RATE, Pcm

PCM_SCALE = 1.0 / 32768.0


@dataclass(frozen=True, slots=True)
class Heard:
    """What the model says of a window before any text. `languages` has a probability for each it knows."""

    no_speech_prob: float
    languages: dict[str, float]


def encode(model: Any, mel: Any, sounds: Sequence[Pcm]) -> Tensor:
    """States [rows, positions, width] of Transformers' own encoder; `mel` is the checkpoint's feature
    extractor."""
    features = _features(model, mel, sounds)
    # On a CPU a batch is no faster than its rows and takes more memory (measured).
    parts = features.split(1) if features.device.type == "cpu" else (features,)
    return torch.cat([model.model.encoder(part).last_hidden_state for part in parts])


def begin_pass(encoder: Encoder, mel: Any, sound: Pcm) -> Pass:
    """One window, over as much of it as the encoder works through: a pass that has not begun."""
    samples = encoder.samples(len(sound))
    found = mel(
        [_wave(sound)],
        sampling_rate=SAMPLE_RATE,
        return_tensors="pt",
        padding="max_length",
        max_length=samples,
    )
    return encoder(found.input_features)


def _features(model: Any, mel: Any, sounds: Sequence[Pcm]) -> Any:
    waves = [_wave(pcm) for pcm in sounds]
    device = model.device
    found = mel(waves, sampling_rate=SAMPLE_RATE, return_tensors="pt", device=device.type)
    return found.input_features.to(device, model.dtype)


def _wave(pcm: Pcm) -> NDArray[np.float32]:
    wave: NDArray[np.float32] = pcm.astype(np.float32) * PCM_SCALE
    return wave if len(wave) else np.zeros(1, np.float32)


def heard(logits: Tensor, tokens: Tokens) -> Heard:
    """From the logits [vocabulary] after the start token."""
    logits = logits.float().cpu()
    no_speech = float(logits.softmax(-1)[tokens.no_speech]) if tokens.no_speech is not None else 0.0
    codes = list(tokens.languages)
    if not codes:
        return Heard(no_speech, {})
    likely = logits[list(tokens.languages.values())].softmax(-1).tolist()
    return Heard(no_speech, dict(zip(codes, likely, strict=True)))
