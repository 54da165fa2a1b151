"""The network that is trained: a Whisper of Hugging Face, and one more layer that names phones, not kept.

What makes it learn in hours on a processor: every frame's phone is known, so the encoder has a dense target
from the first step; every token's time is known, so half of the cross-attention heads are told where to
look (they serve for word times afterwards); and the encoder's heads begin as soft windows around their own
frame.
"""

import math
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    WhisperConfig,
    WhisperForConditionalGeneration,
)
from transformers.masking_utils import eager_mask

from models.training.synthesis import PHONES
from models.training.targets import NO_TARGET, POSITIONS

LOOK_FRAMES = 5.0
"""How far from its true time a token may look, one standard deviation; a frame is 20 ms."""
TIME_SPREAD = 1.3
"""Timestamp targets are spread over their neighbours, in steps of 20 ms."""
POSITION_SCALE = 0.7
"""Of the sinusoids: at full size they drown the sound at first."""


class Losses(NamedTuple):
    """Of the text tokens, of the timestamps, of the phones, and of where the decoder looks."""

    text: Tensor
    times: Tensor
    phones: Tensor
    look: Tensor

    def weighted(self, weights: "Weights") -> Tensor:
        parts = [weight * loss for weight, loss in zip(weights, self, strict=True)]
        return torch.stack(parts).sum()


class Weights(NamedTuple):
    """Of the losses, in their order."""

    text: float
    times: float
    phones: float
    look: float


class Learner(nn.Module):
    def __init__(self, whisper: WhisperForConditionalGeneration, first_time: int) -> None:
        super().__init__()
        self.whisper = whisper
        self.phones = nn.Linear(whisper.config.d_model, len(PHONES))
        self._first_time = first_time

    def forward(self, mel: Tensor, batch: dict[str, Any]) -> Losses:
        """`mel` is (batch, bands, columns); the rest as `Windows.batch` gives it."""
        states = self._encode(mel, batch["offset"])
        decoded = self.whisper.model.decoder(
            input_ids=batch["inputs"], encoder_hidden_states=states, use_cache=False, output_attentions=True
        )
        text, times = self._token_losses(decoded.last_hidden_state, batch["targets"])
        named = self.phones(states).float().flatten(0, 1)
        phones = F.cross_entropy(named, batch["phones"].flatten(), label_smoothing=0.02)
        return Losses(text, times, phones, _look_loss(decoded.cross_attentions, batch["when"]))

    def _encode(self, mel: Tensor, offset: int) -> Tensor:
        """As `WhisperEncoder` does it, for windows of any length that lie at `offset` frames."""
        encoder = self.whisper.model.encoder
        states = F.gelu(encoder.conv2(F.gelu(encoder.conv1(mel)))).transpose(1, 2)
        states = states + encoder.embed_positions.weight[offset : offset + states.shape[1]].to(states.dtype)
        for layer in encoder.layers:
            states = layer(states, None)
        normed: Tensor = encoder.layer_norm(states)
        return normed

    def _token_losses(self, states: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        counted = targets != NO_TARGET
        logits = F.linear(states[counted], self.whisper.proj_out.weight.to(states.dtype)).float()
        wanted, scores = targets[counted], F.log_softmax(logits, -1)
        is_time = wanted >= self._first_time
        text = -scores[~is_time].gather(1, wanted[~is_time, None]).mean()
        if not is_time.any():
            return text, text.new_zeros(())
        steps = torch.arange(-3, 4, device=wanted.device)
        spread = torch.softmax(-0.5 * (steps / TIME_SPREAD) ** 2, 0)
        near = (wanted[is_time, None] + steps).clamp(self._first_time, self._first_time + POSITIONS)
        return text, -(scores[is_time].gather(1, near) * spread).sum(1).mean()


def _look_loss(attentions: tuple[Tensor, ...], when: Tensor) -> Tensor:
    """How little the first half of each layer's heads look at the true time of the token they are to give.

    `attentions` are (batch, heads, tokens, frames), `when` (batch, tokens) frames or negative.
    """
    known = when >= 0
    if not known.any():
        return when.new_zeros(())
    frames = torch.arange(attentions[0].shape[-1], device=when.device)
    near = torch.exp(-0.5 * ((frames - when[known][:, None]) / LOOK_FRAMES) ** 2)
    loss = when.new_zeros(())
    for layer in attentions:
        heads = layer[:, : layer.shape[1] // 2].transpose(1, 2)[known].float()
        loss = loss - torch.log((heads * near[:, None]).sum(-1) + 1e-4).mean()
    return loss / len(attentions)


def _plain_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **_: Any
) -> tuple[Tensor, Tensor]:
    """Gives its weights, which `_look_loss` needs; on a processor its backward pass takes half the time of
    the fused one. Whisper has scaled the query already."""
    scores = query @ key.transpose(2, 3)
    weights = torch.softmax(scores if attention_mask is None else scores + attention_mask, -1)
    return (weights @ value).transpose(1, 2), weights


AttentionInterface.register("plain", _plain_attention)
AttentionMaskInterface.register("plain", eager_mask)  # an implementation without one gets no mask at all


def untrained(folder: Path, seed: int) -> WhisperForConditionalGeneration:
    """In fp32, with initial weights that learn sooner than the stock ones."""
    torch.manual_seed(seed)
    config = WhisperConfig.from_pretrained(folder, attn_implementation="plain")
    whisper = WhisperForConditionalGeneration(config)
    encoder, decoder = whisper.model.encoder, whisper.model.decoder
    with torch.no_grad():
        sinusoids = encoder.embed_positions.weight.clone()
        encoder.embed_positions.weight.mul_(POSITION_SCALE)
        for convolution in (encoder.conv1, encoder.conv2):
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
        for layers in (encoder.layers, decoder.layers):
            for name, module in layers.named_modules():
                if isinstance(module, nn.Linear):
                    nn.init.xavier_normal_(module.weight)
                    if name.endswith(("out_proj", "fc2")):
                        module.weight.mul_(0.5)
        _look_around(encoder, config)
        decoder.embed_positions.weight.normal_(0, 0.05)
        decoder.embed_tokens.weight.normal_(0, 0.05)
        # Time k and the encoder's frame k are the same 20 ms: so the one is easily copied from the other.
        decoder.embed_tokens.weight[-POSITIONS - 1 : -1] = sinusoids * 0.07
        decoder.embed_tokens.weight[-1] = sinusoids[-1] * 0.07
    return whisper


def _look_around(encoder: Any, config: WhisperConfig) -> None:
    """Let every encoder head begin as a soft window some frames before, at or after its own.

    The product of two sinusoidal tables, one of them rotated, depends on the distance of two positions only.
    To find this by descent takes a young transformer most of an hour.
    """
    half, size = config.d_model // 2, config.d_model // config.encoder_attention_heads // 2
    speeds = torch.exp(-math.log(10000) / (half - 1) * torch.arange(half))[:size]
    shifts = torch.linspace(-5, 5, config.encoder_attention_heads)
    columns = torch.arange(size)
    for depth, layer in enumerate(encoder.layers):
        strength = 1.5 * (1 + 0.15 * depth)
        query, key = layer.self_attn.q_proj.weight, layer.self_attn.k_proj.weight
        query.mul_(0.3)
        key.mul_(0.3)
        for head, shift in enumerate(shifts):
            sines = head * 2 * size + columns
            cosines = sines + size
            query[sines, columns] += strength * torch.cos(speeds * shift)
            query[sines, half + columns] += strength * torch.sin(speeds * shift)
            query[cosines, half + columns] += strength * torch.cos(speeds * shift)
            query[cosines, columns] -= strength * torch.sin(speeds * shift)
            key[sines, columns] += strength
            key[cosines, half + columns] += strength
