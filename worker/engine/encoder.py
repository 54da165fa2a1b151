"""The encoder on a processor, which may do less: work through the sound beside silence it remembers, and with
the matrices of its layers in int8.

As long as it does all, its states are those of Transformers, bit for bit; it is a tenth faster, as what is
between two products has its memory already and stays in a cache.

Most windows are shorter than thirty seconds, and the encoder wants thirty: the rest is silence, which it
works through like everything else. Here it works through the sound and a margin. What it makes of the silence
behind comes from one pass over nothing but silence; the sound looks at that as it would at its own. The only
thing left out is what the sound would do to the silence.

Neither shortcut gives the states of the whole pass, so neither promises the tokens of `generate`. Whether a
model bears them is measured beforehand (`benchmarks.shortcuts`) and looked at once more when it is loaded.
"""

import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
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


CHUNK = 500
"""Positions whose inner states, four times as wide as a sound, are in memory at once: a cache holds them."""

Product = Callable[[Tensor, Tensor], Tensor]
"""Rows [n, in] times a matrix and with its bias, into the second [n, out] if it can."""


class Room:
    """Memory for what is between two products of one layer: to be given new one is what takes long there."""

    def __init__(self, encoder: Any) -> None:
        places = encoder.embed_positions.weight
        positions, width = places.shape
        self.fused = places.new_empty(positions, 3 * width)
        self.more = places.new_empty(positions, width)
        self.inner = places.new_empty(min(CHUNK, positions), len(encoder.layers[0].fc1.weight))


class Layer:
    """Of the encoder, in place over one sound [length, width]. Not thread-safe: all use the same room."""

    def __init__(self, layer: Any, room: Room, product: Callable[[Tensor, Tensor], Product]) -> None:
        own = layer.self_attn
        self._room, self._activate = room, layer.activation_fn
        self._own_norm = norm_weight(layer.self_attn_layer_norm)
        self._norm = norm_weight(layer.final_layer_norm)
        self._own = product(*joined_weights(own.q_proj, own.k_proj, own.v_proj))
        self._own_out = product(own.out_proj.weight, own.out_proj.bias)
        self._widen = product(layer.fc1.weight, layer.fc1.bias)
        self._narrow = product(layer.fc2.weight, layer.fc2.bias)

    def ask(self, sound: Tensor) -> Tensor:
        """Query, key and value [length, 3 x width]; they last until another layer is asked."""
        return self._own(normed(sound, self._own_norm), self._room.fused[: len(sound)])

    def finish(self, sound: Tensor, seen: Tensor) -> None:
        """What was seen [length, width] and all that follows from it, added to the sound."""
        sound += self._own_out(seen, self._room.more[: len(sound)])
        for part in torch.split(sound, CHUNK):
            inner = self._widen(normed(part, self._norm), self._room.inner[: len(part)])
            part += self._narrow(self._activate(inner), self._room.more[: len(part)])


@dataclass(slots=True, eq=False)
class Silence:
    """What a pass over nothing else made of it: keys and values of each layer, and the states [1, positions,
    width]. `sound` is for the decoder to remember what it makes of them."""

    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    states: Tensor = field(default_factory=lambda: torch.empty(0))
    sound: Sound = ()


@dataclass(frozen=True, slots=True, eq=False)
class SoundStates:
    """A window: the states of its beginning [positions, width], and the silence that follows, if any does."""

    states: Tensor
    silence: Silence | None

    def whole(self) -> Tensor:
        if self.silence is None:
            return self.states
        return torch.cat([self.states, self.silence.states[0, len(self.states) :]])


Pass = Generator[None, None, SoundStates]
"""Stops between two layers. What it comes to is what it returns."""


class Encoder:
    """Over one window at a time, on a processor. Not thread-safe; where a pass stops, another may begin."""

    def __init__(self, model: Any, shortcuts: Shortcuts, beside: "Encoder | None" = None) -> None:
        """Shares the layers of the one `beside` it, but for those in int8."""
        self.shortcuts = shortcuts
        encoder = model.model.encoder
        self._narrow_sound, self._halve = encoder.conv1, encoder.conv2
        self._places: Tensor = encoder.embed_positions.weight
        self._heads = int(model.config.encoder_attention_heads)
        self._width = int(model.config.d_model)
        shared = None if beside is None or shortcuts.int8 else beside._layers
        self._layers: Sequence[Layer] = shared or _layers_of(model, shortcuts)
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
            return SoundStates(normed(sound, self._norm), None)
        level = max(float(features.max()) - BELOW_LOUDEST, LOWEST)
        silence = yield from self._silence(round(level / LEVEL_STEP))
        # The last position hears a little of what follows it.
        edged = functional.pad(features, (0, EDGE_FRAMES), value=level)
        sound = yield from self._pass(self._positions(edged)[:length], silence)
        return SoundStates(normed(sound, self._norm), silence)

    def _silence(self, level: int) -> Generator[None, None, Silence]:
        """Those used last are remembered."""
        found = self._silences.pop(level, None)
        if found is None:
            frames = 2 * len(self._places)
            features = self._places.new_full((1, self._narrow_sound.in_channels, frames), level * LEVEL_STEP)
            found = Silence()
            sound = yield from self._pass(self._positions(features), record=found)
            found.states = normed(sound, self._norm)[None]
            yield
        self._silences[level] = found
        if len(self._silences) > REMEMBERED:
            del self._silences[next(iter(self._silences))]
        return found

    def _positions(self, features: Tensor) -> Tensor:
        """[length, width], for the layers to change in place."""
        sound = functional.gelu(self._halve(functional.gelu(self._narrow_sound(features))))[0].T
        length = min(len(sound), len(self._places))
        return (sound[:length] + self._places[:length]).contiguous()

    def _pass(
        self, sound: Tensor, silence: Silence | None = None, record: Silence | None = None
    ) -> Generator[None, None, Tensor]:
        """Through all layers; beside the end of `silence`, if any."""
        length = len(sound)
        shape = (1, length, 3, self._heads, self._width // self._heads)
        for number, layer in enumerate(self._layers):
            if number:
                yield
            query, key, value = layer.ask(sound).view(shape).permute(2, 0, 3, 1, 4)
            if record is not None:
                record.keys.append(key.clone())
                record.values.append(value.clone())
            if silence is not None:
                key = torch.cat([key, silence.keys[number][:, :, length:]], dim=2)
                value = torch.cat([value, silence.values[number][:, :, length:]], dim=2)
            seen = functional.scaled_dot_product_attention(query, key, value)
            layer.finish(sound, seen.transpose(1, 2).reshape(length, self._width))
        return sound


def normed(sound: Tensor, norm: Weight) -> Tensor:
    return functional.layer_norm(sound, sound.shape[-1:], *norm)


def free_layers(model: Any) -> None:
    """The whole encoder's layers: nobody can run them from now on."""
    model.model.encoder.layers = torch.nn.ModuleList()


def _layers_of(model: Any, shortcuts: Shortcuts) -> Sequence[Layer]:
    """In the model's own memory, but for those in int8."""
    encoder = model.model.encoder
    room = Room(encoder)
    product = _whole
    if shortcuts.int8:
        product = partial(_int8, is_one_length=shortcuts.margin_s is None)
    return [Layer(layer, room, product) for layer in encoder.layers]


def packed_int8(weight: Tensor, bias: Tensor, *, is_one_length: bool = False) -> Matrix:
    """The weights in int8, each row by a factor of its own; what they are multiplied with, by one factor.
    Where it is always of one length, a library is faster that makes code for each length."""
    engines = torch.backends.quantized
    engine = "onednn" if is_one_length and "onednn" in engines.supported_engines else engines.engine
    largest = weight.detach().float().abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny)
    with warnings.catch_warnings():
        # Torch means to replace this by another way one day, and the versions here are pinned.
        warnings.simplefilter("ignore")
        whole = torch.quantize_per_channel(
            weight.detach().float(), largest.double() / 127, torch.zeros(len(weight)).long(), 0, torch.qint8
        )
        with _quantized_by(engine):
            packed = torch.ops.quantized.linear_prepack(whole, bias.detach().float())

    def product(rows: Tensor) -> Tensor:
        # Seven bits for the rows: with eight, sums overflow where the processor has no VNNI.
        result: Tensor = torch.ops.quantized.linear_dynamic(rows, packed, reduce_range=True)
        return result

    return product


@contextmanager
def _quantized_by(engine: str) -> Iterator[None]:
    """What is packed meanwhile stays with that library."""
    before, torch.backends.quantized.engine = torch.backends.quantized.engine, engine
    try:
        yield
    finally:
        torch.backends.quantized.engine = before


def _int8(weight: Tensor, bias: Tensor, *, is_one_length: bool) -> Product:
    packed = packed_int8(weight, bias, is_one_length=is_one_length)
    return lambda rows, _: packed(rows)


def _whole(weight: Tensor, bias: Tensor) -> Product:
    bias, across = bias.detach(), weight.detach().T
    return lambda rows, out: torch.addmm(bias, rows, across, out=out)
