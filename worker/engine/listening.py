"""From sound to what the decoder reads: mel, one encoder pass per window, one step for the language."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from worker.engine.doctor import Tokens
from worker.engine.values import SAMPLE_RATE, Pcm

PCM_SCALE = 1.0 / 32768.0


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """Encoder states [rows, positions, width] and the decoder's keys and values over them, computed once."""

    states: Tensor
    cross: Any

    def __len__(self) -> int:
        return int(self.states.shape[0])

    def rows(self, rows: Sequence[int]) -> "Encoded":
        """The named rows in the named order; the same object when that is all of them."""
        if list(rows) == list(range(len(self))):
            return self
        picked = torch.tensor(rows, device=self.states.device)
        cross = DynamicCache()
        for number, layer in enumerate(self.cross.layers):
            cross.update(layer.keys[picked], layer.values[picked], number)
        return Encoded(self.states[picked], cross)


@dataclass(frozen=True, slots=True)
class Heard:
    """What the model says of a window before any text. `languages` has a probability for each it knows."""

    no_speech_prob: float
    languages: dict[str, float]


def encode(model: Any, mel: Any, sounds: Sequence[Pcm]) -> Tensor:
    """Encoder states [rows, positions, width]; `mel` is the checkpoint's feature extractor."""
    waves = [pcm.astype(np.float32) * PCM_SCALE if len(pcm) else np.zeros(1, np.float32) for pcm in sounds]
    device = model.device
    features = mel(waves, sampling_rate=SAMPLE_RATE, return_tensors="pt", device=device.type).input_features
    features = features.to(device, model.dtype)
    # On a CPU a batch is no faster than its rows and takes more memory (measured).
    parts = features.split(1) if device.type == "cpu" else (features,)
    return torch.cat([model.model.encoder(part).last_hidden_state for part in parts])


def listen(model: Any, states: Tensor, tokens: Tokens) -> tuple[Encoded, list[Heard]]:
    """One decoder step from the start token: language, no-speech, and keys and values for all later steps."""
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    start = torch.full((states.shape[0], 1), tokens.sot, device=states.device)
    output = model(
        encoder_outputs=BaseModelOutput(last_hidden_state=states),
        decoder_input_ids=start,
        past_key_values=cache,
        use_cache=True,
    )
    logits = output.logits[:, -1].float()
    heard = [_heard(row, tokens) for row in logits.cpu()]
    return Encoded(states, cache.cross_attention_cache), heard


def _heard(logits: Tensor, tokens: Tokens) -> Heard:
    no_speech = float(logits.softmax(-1)[tokens.no_speech]) if tokens.no_speech is not None else 0.0
    codes = list(tokens.languages)
    if not codes:
        return Heard(no_speech, {})
    likely = logits[list(tokens.languages.values())].softmax(-1).tolist()
    return Heard(no_speech, dict(zip(codes, likely, strict=True)))
