"""A pass of the encoder that does less: over the sound, beside silence it remembers, and with the matrices of
its layers in int8.

Most windows are shorter than thirty seconds, and the encoder wants thirty: the rest is silence, which it
works through like everything else. Here it works through the sound and a margin. What it makes of the silence
behind comes from one pass over nothing but silence; the sound looks at that as it would at its own. The only
thing left out is what the sound would do to the silence.

Neither shortcut gives the states of the whole pass, so neither promises the tokens of `generate`. Whether a
model bears them is measured beforehand (`benchmarks.shortcuts`) and looked at once more when it is loaded.
"""

import warnings
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from shared.models import Shortcuts
from worker.engine.text_decoder import Matrix, Sound, Weight, joined_weights, norm_weight
from worker.engine.values import SAMPLE_RATE, WINDOW_SAMPLES

SAMPLES_PER_POSITION = 320

BELOW_LOUDEST = 2.0
LOWEST = -1.5
"""Silence in mel features: so far below the loudest there is, and never lower."""

LEVEL_STEP = 0.25
"""Windows whose silence differs by less share one: ten decibels of what is loudest."""

REMEMBERED = 3
"""While one more is made, or a pass has stopped that began beside one forgotten since, there are four."""

EDGE_FRAMES = 4


@dataclass(frozen=True, slots=True, eq=False)
class _Layer:
    own_norm: Weight
    own: Matrix
    own_out: Matrix
    norm: Weight
    widen: Matrix
    narrow: Matrix
    activate: Callable[[Tensor], Tensor]


@dataclass(slots=True, eq=False)
class Silence:
    """What a pass over nothing else made of it: keys and values of each layer, and the states [1, positions,
    width]. `sound` is for the decoder to remember what it makes of them."""

    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    states: Tensor = field(default_factory=lambda: torch.empty(0))
    sound: Sound = ()


@dataclass(frozen=True, slots=True, eq=False)
class ShortStates:
    """A window: the states of its beginning [positions, width], and the silence that follows, if any does."""

    states: Tensor
    silence: Silence | None

    def whole(self) -> Tensor:
        if self.silence is None:
            return self.states
        return torch.cat([self.states, self.silence.states[0, len(self.states) :]])


Pass = Generator[None, None, ShortStates]
"""Stops between two layers. What it comes to is what it returns."""


class ShortEncoder:
    """Over one window at a time, on a processor. Not thread-safe; where a pass stops, another may begin."""

    def __init__(self, model: Any, shortcuts: Shortcuts) -> None:
        self.shortcuts = shortcuts
        encoder = model.model.encoder
        self._narrow_sound, self._halve = encoder.conv1, encoder.conv2
        self._places: Tensor = encoder.embed_positions.weight
        self._heads = int(model.config.encoder_attention_heads)
        self._width = int(model.config.d_model)
        pack = packed_int8 if shortcuts.int8 else _plain
        self._layers = [_shortened(layer, pack) for layer in encoder.layers]
        self._norm = norm_weight(encoder.layer_norm)
        self._silences: dict[int, Silence] = {}

    def silence_bytes(self, sound_bytes: int) -> int:
        """The most that is remembered comes to, when what the decoder makes of a silence takes so much."""
        if self.shortcuts.margin_s is None:
            return 0
        return REMEMBERED * ((2 * len(self._layers) + 1) * self._places.nbytes + sound_bytes)

    def samples(self, length: int) -> int:
        """How much of a window is worked through when so many samples of it are sound."""
        if self.shortcuts.margin_s is None:
            return WINDOW_SAMPLES
        wanted = length + round(self.shortcuts.margin_s * SAMPLE_RATE)
        return min(WINDOW_SAMPLES, -(-wanted // SAMPLES_PER_POSITION) * SAMPLES_PER_POSITION)

    def __call__(self, features: Tensor) -> Pass:
        """`features` [1, bins, frames] are the mel of a window's beginning, two frames for each position;
        what follows is silence."""
        features = features.to(self._places.dtype)
        length = features.shape[-1] // 2
        if length == len(self._places):
            sound = yield from self._pass(self._positions(features))
            return ShortStates(self._normed(sound, self._norm)[0], None)
        level = max(float(features.max()) - BELOW_LOUDEST, LOWEST)
        silence = yield from self._silence(round(level / LEVEL_STEP))
        # The last position hears a little of what follows it.
        edged = functional.pad(features, (0, EDGE_FRAMES), value=level)
        sound = yield from self._pass(self._positions(edged)[:, :length], silence)
        return ShortStates(self._normed(sound, self._norm)[0], silence)

    def _silence(self, level: int) -> Generator[None, None, Silence]:
        """Those used last are remembered."""
        found = self._silences.pop(level, None)
        if found is None:
            frames = 2 * len(self._places)
            features = self._places.new_full((1, self._narrow_sound.in_channels, frames), level * LEVEL_STEP)
            found = Silence()
            sound = yield from self._pass(self._positions(features), record=found)
            found.states = self._normed(sound, self._norm)
            yield
        self._silences[level] = found
        if len(self._silences) > REMEMBERED:
            del self._silences[next(iter(self._silences))]
        return found

    def _positions(self, features: Tensor) -> Tensor:
        sound = functional.gelu(self._halve(functional.gelu(self._narrow_sound(features)))).transpose(1, 2)
        length = min(sound.shape[1], len(self._places))
        return sound[:, :length] + self._places[:length]

    def _pass(
        self, sound: Tensor, silence: Silence | None = None, record: Silence | None = None
    ) -> Generator[None, None, Tensor]:
        """Through all layers; beside the end of `silence`, if any."""
        length = sound.shape[1]
        shape = (1, length, 3, self._heads, self._width // self._heads)
        for number, layer in enumerate(self._layers):
            if number:
                yield
            fused = layer.own(self._normed(sound, layer.own_norm))
            query, key, value = fused.view(shape).permute(2, 0, 3, 1, 4)
            if record is not None:
                record.keys.append(key.clone())
                record.values.append(value.clone())
            if silence is not None:
                key = torch.cat([key, silence.keys[number][:, :, length:]], dim=2)
                value = torch.cat([value, silence.values[number][:, :, length:]], dim=2)
            seen = functional.scaled_dot_product_attention(query, key, value)
            sound = sound + layer.own_out(seen.transpose(1, 2).reshape(1, length, self._width))
            sound = sound + layer.narrow(layer.activate(layer.widen(self._normed(sound, layer.norm))))
        return sound

    def _normed(self, sound: Tensor, norm: Weight) -> Tensor:
        return functional.layer_norm(sound, (self._width,), *norm)


def free_layers(model: Any) -> None:
    """The whole encoder's layers: nobody can run them from now on."""
    model.model.encoder.layers = torch.nn.ModuleList()


def packed_int8(weight: Tensor, bias: Tensor | None) -> Matrix:
    """The weights in int8, each row by a factor of its own; what they are multiplied with, by one factor."""
    largest = weight.detach().float().abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny)
    with warnings.catch_warnings():
        # Torch means to replace this by another way one day, and the versions here are pinned.
        warnings.simplefilter("ignore")
        whole = torch.quantize_per_channel(
            weight.detach().float(), largest.double() / 127, torch.zeros(len(weight)).long(), 0, torch.qint8
        )
        packed = torch.ops.quantized.linear_prepack(whole, None if bias is None else bias.detach().float())

    def product(rows: Tensor) -> Tensor:
        # Seven bits for the rows: with eight, sums overflow where the processor has no VNNI.
        result: Tensor = torch.ops.quantized.linear_dynamic(rows, packed, reduce_range=True)
        return result

    return product


def _plain(weight: Tensor, bias: Tensor | None) -> Matrix:
    return lambda rows: functional.linear(rows, weight, bias)


def _shortened(layer: Any, pack: Callable[[Tensor, Tensor | None], Matrix]) -> _Layer:
    own = layer.self_attn
    return _Layer(
        own_norm=norm_weight(layer.self_attn_layer_norm),
        own=pack(*joined_weights(own.q_proj, own.k_proj, own.v_proj)),
        own_out=pack(own.out_proj.weight, own.out_proj.bias),
        norm=norm_weight(layer.final_layer_norm),
        widen=pack(layer.fc1.weight, layer.fc1.bias),
        narrow=pack(layer.fc2.weight, layer.fc2.bias),
        activate=layer.activation_fn,
    )
