"""What shows only in the weights: does the model still write timestamps, does its prompt name a language?

Fine-tunes are mostly trained on text without timestamps; the tokens stay in the vocabulary, but the model has
learnt to answer `<|notimestamps|>` or text where a timestamp could stand. Measured on made-up sound at load.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from worker.engine.doctor import Tokens
from worker.engine.values import SAMPLE_RATE, Pcm

PROBE_SECONDS = 3.0
MIN_TIMESTAMP_MASS = 0.02
"""The bundled model puts 0.57 on timestamps and loses that within forty training steps without them; models
trained with timestamps on a fifth of their text stay well above."""

_FORMANTS_HZ = ((700.0, 1200.0, 2600.0), (300.0, 2200.0, 3000.0), (400.0, 800.0, 2400.0))
_SYLLABLES_PER_S = 4.0


def speechlike(pitch_hz: float = 120.0) -> Pcm:
    """Vowels at a speaker's pace, the same at every call: harmonics under three moving formants."""
    time = np.arange(int(PROBE_SECONDS * SAMPLE_RATE)) / SAMPLE_RATE
    syllable = (time * _SYLLABLES_PER_S).astype(int) % len(_FORMANTS_HZ)
    formants = np.asarray(_FORMANTS_HZ)[syllable]
    sound = np.zeros_like(time)
    for harmonic in range(1, 30):
        frequency = harmonic * pitch_hz
        gain = np.exp(-(((frequency - formants) / 150.0) ** 2)).sum(axis=1) + 0.02
        sound += gain / harmonic * np.sin(2 * np.pi * frequency * time)
    envelope = np.sin(np.pi * (time * _SYLLABLES_PER_S % 1.0)) ** 2
    envelope *= (time > 0.4) & (time < PROBE_SECONDS - 0.4)
    sound *= envelope / np.abs(sound).max()
    return np.asarray(sound * 0.3 * np.iinfo(np.int16).max, dtype=np.int16)


def timestamp_mass(model: Any, states: Tensor, prompt: tuple[int, ...], tokens: Tokens) -> float:
    """The largest share, over the rows, that timestamps have of the first step after `prompt`."""
    chances = _next_chances(model, states, prompt)
    return float(chances[:, tokens.timestamps.start : tokens.timestamps.stop].sum(-1).max())


def wants_language(model: Any, states: Tensor, tokens: Tokens) -> bool:
    """False for a model trained with `<|startoftranscript|><|notimestamps|>` alone before its text."""
    if not tokens.languages or tokens.no_timestamps is None:
        return bool(tokens.languages)
    chances = _next_chances(model, states, (tokens.sot,))
    language = chances[:, list(tokens.languages.values())].sum(-1)
    return bool((language >= chances[:, tokens.no_timestamps]).any())


def _next_chances(model: Any, states: Tensor, prompt: tuple[int, ...]) -> Tensor:
    ids = torch.tensor([prompt] * states.shape[0], device=states.device)
    hidden = model.model.decoder(
        input_ids=ids, encoder_hidden_states=states, use_cache=False
    ).last_hidden_state
    logits: Tensor = model.proj_out(hidden[:, -1])
    return logits.float().softmax(-1)
