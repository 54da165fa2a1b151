"""The decoder's network over slots: the checkpoint's own weights, our own caches and our own pass.

A slot is a row of every cache: keys and values of one window's sound, computed once, and of what has been
written about it so far. Rows are at positions of their own. Which token comes next is not decided here.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Weight = tuple[Tensor, Tensor]
"""Of a layer norm: factors and offsets."""

Matrix = Callable[[Tensor], Tensor]

Sound = Sequence[tuple[Tensor, Tensor]]
"""Keys [heads, head width, positions] and values [heads, positions, head width], for each layer."""


TALL = 16
"""So many times more rows than columns: a vocabulary."""


@dataclass(frozen=True, slots=True, eq=False)
class Product:
    weight: Tensor
    bias: Tensor | None

    def __call__(self, rows: Tensor) -> Tensor:
        if self._is_tall:
            # The same product with the tall matrix in front takes two thirds of the time (measured).
            return torch.mm(self.weight, rows.T).T.contiguous()
        return functional.linear(rows, self.weight, self.bias)

    @property
    def _is_tall(self) -> bool:
        rows, columns = self.weight.shape
        is_plain = self.weight.device.type == "cpu" and self.weight.dtype == torch.float32
        return is_plain and self.bias is None and rows > TALL * columns


@dataclass(frozen=True, slots=True, eq=False)
class _Layer:
    """One decoder layer. `own` gives query, key and value of the text."""

    own_norm: Weight
    own: Product
    own_out: Product
    sound_norm: Weight
    query: Product
    sound_out: Product
    norm: Weight
    widen: Product
    narrow: Product
    activate: Callable[[Tensor], Tensor]


class Decoder:
    """Over `slots` rows, of which the first n are in use in any pass. Not thread-safe."""

    def __init__(self, model: Any, slots: int, kept: torch.dtype | None = None) -> None:
        """`kept` is the number format of the caches, the model's own if none is named."""
        decoder, config = model.model.decoder, model.config
        self._kept = kept or model.dtype
        self.slots = slots
        self.positions = int(config.max_target_positions)
        self._heads = int(config.decoder_attention_heads)
        self._width = int(config.d_model)
        self._sound_positions = int(config.max_source_positions)
        self._embedding: Tensor = decoder.embed_tokens.weight
        self._places: Tensor = decoder.embed_positions.weight
        self._scale = float(decoder.embed_scale)
        self._layers = [_fused(layer) for layer in decoder.layers]
        heard = [layer.encoder_attn for layer in decoder.layers]
        self._heard = [Product(*joined_weights(layer.k_proj, layer.v_proj)) for layer in heard]
        self._norm: Weight = (decoder.layer_norm.weight, decoder.layer_norm.bias)
        self._vocabulary = Product(model.proj_out.weight, model.proj_out.bias)
        self._numbers = torch.arange(self.positions, device=model.device)
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []
        self._sound_keys: list[Tensor] = []
        self._sound_values: list[Tensor] = []
        for caches, shape in self._caches():
            caches += [self._empty(slots, shape) for _ in self._heard]

    def __str__(self) -> str:
        return f"torch, {str(self._kept).removeprefix('torch.')}"

    @property
    def slot_bytes(self) -> int:
        """Memory of one slot, as it is and not as it might be."""
        return self.sound_bytes + self._cache_bytes(self.positions)

    @property
    def sound_bytes(self) -> int:
        """Memory of the sound of one window."""
        return self._cache_bytes(self._sound_positions)

    def resize(self, slots: int, kept: int) -> None:
        """Keeps the first `kept` rows. Memory may be short: each cache goes before its successor comes."""
        self.slots = slots
        for caches, shape in self._caches():
            for number in range(len(caches)):
                caches[number] = caches[number][:kept].clone()
                new = self._empty(slots, shape)
                new[:kept] = caches[number]
                caches[number] = new

    def let_go(self, model: Any) -> None:
        """Of what this decoder has from `model` and keeps in another format; here nothing."""

    def place(self, row: int, states: Tensor, behind: Sound = ()) -> None:
        """The sound of a window, encoder states [positions, width], into a row. Where they are not all, the
        rest is that of `behind` at its positions."""
        length = len(states)
        for number, (keys, values) in enumerate(self.sound(states)):
            self._sound_keys[number][row, :, :, :length] = keys
            self._sound_values[number][row, :, :length] = values
            if behind:
                self._sound_keys[number][row, :, :, length:] = behind[number][0][:, :, length:]
                self._sound_values[number][row, :, length:] = behind[number][1][:, length:]

    def sound(self, states: Tensor) -> Sound:
        """As a row keeps it."""
        shape = (-1, 2, self._heads, self._head_width)
        both = (product(states).view(shape).unbind(1) for product in self._heard)
        return [
            (keys.permute(1, 2, 0).to(self._kept), values.transpose(0, 1).to(self._kept))
            for keys, values in both
        ]

    def move(self, source: int, target: int) -> None:
        for caches, _ in self._caches():
            for cache in caches:
                cache[target] = cache[source]

    def step(self, tokens: Tensor, positions: Tensor, longest: int, first: int = 0) -> Tensor:
        """Logits [rows, vocabulary] after one more token for each of the rows from `first` on. `positions`
        are where the tokens stand, none of them `longest` or beyond."""
        span = slice(first, first + len(tokens))
        rows = (
            self._numbers[span]
            if span.stop <= self.positions
            else torch.arange(first, span.stop, device=tokens.device)
        )
        after = self._numbers[:longest] > positions.unsqueeze(1)
        mask = torch.zeros(after.shape, dtype=self._places.dtype, device=after.device)
        mask = mask.masked_fill_(after, float("-inf"))[:, None, None]
        text = (self._embedded(tokens) + self._places[positions]).unsqueeze(1)
        for number, layer in enumerate(self._layers):
            query, key, value = self._own(layer, text)
            keys, values = self._keys[number], self._values[number]
            keys[rows, :, positions] = key[:, :, 0]
            values[rows, :, positions] = value[:, :, 0]
            seen = self._attend(query, keys[span, :, :longest], values[span, :, :longest], mask=mask)
            text = self._rest(number, text + layer.own_out(seen), span)
        return self._vocabulary(self._normed(text[:, 0], self._norm))

    def read(self, row: int, tokens: Sequence[int]) -> None:
        """All of `tokens` at once, from position 0, as if each had been written."""
        length = len(tokens)
        for number, key, value, _ in self._through([row], [tokens], len(self._layers) - 1):
            self._keys[number][row, :, :length] = key[0]
            self._values[number][row, :, :length] = value[0]

    def questions(
        self, rows: Sequence[int], texts: Sequence[Sequence[int]], layers: Sequence[int]
    ) -> list[Tensor]:
        """What each token of a text for each of the rows asks of the row's sound in `layers`, which are in
        order: [rows, heads, tokens, head width], with no meaning behind the end of a shorter text. What has
        been written in the rows is neither seen nor touched; layers above those are not run."""
        return [
            self._question(self._layers[number], text)
            for number, _, _, text in self._through(rows, texts, layers[-1])
            if number in layers
        ]

    def sound_keys(self, rows: Sequence[int], layer: int) -> Tensor:
        """[rows, heads, head width, positions]"""
        return self._sound_keys[layer][self._place(rows)]

    @property
    def question_scale(self) -> float:
        return 1.0 / math.sqrt(self._head_width)

    @property
    def _head_width(self) -> int:
        return self._width // self._heads

    def _caches(self) -> tuple[tuple[list[Tensor], tuple[int, int]], ...]:
        """With the shape of a head in each. The sound's keys lie across: one query for each row and head is
        multiplied with them a third faster so (measured)."""
        width = self._head_width
        return (
            (self._keys, (self.positions, width)),
            (self._values, (self.positions, width)),
            (self._sound_keys, (width, self._sound_positions)),
            (self._sound_values, (self._sound_positions, width)),
        )

    def _cache_bytes(self, positions: int) -> int:
        """Keys and values of all layers."""
        return 2 * len(self._heard) * self._width * positions * self._kept.itemsize

    def _empty(self, slots: int, shape: tuple[int, int]) -> Tensor:
        # Written to, so that memory is taken now and not window by window; and what a mask hides must be a
        # number all the same.
        return torch.empty((slots, self._heads, *shape), dtype=self._kept, device=self._places.device).zero_()

    def _through(
        self, rows: Sequence[int], texts: Sequence[Sequence[int]], last: int
    ) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
        """All texts at once from position 0, layer by layer up to `last`: its number, the texts' own keys and
        values in it, and the texts when they have looked at themselves. Shorter ones are filled up at their
        end, which nothing before it looks at."""
        longest = max(len(text) for text in texts)
        filled = [[*text, *[0] * (longest - len(text))] for text in texts]
        text = self._embedded(torch.tensor(filled, device=self._places.device)) + self._places[:longest]
        place = self._place(rows)
        for number, layer in enumerate(self._layers[: last + 1]):
            query, key, value = self._own(layer, text)
            text = text + layer.own_out(self._attend(query, key, value, is_causal=True))
            yield number, key, value, text
            if number < last:
                text = self._rest(number, text, place)

    def _place(self, rows: Sequence[int]) -> slice | Tensor:
        """Neighbours are read where they lie; others are put together first."""
        first, count = rows[0], len(rows)
        if list(rows) == list(range(first, first + count)):
            return slice(first, first + count)
        return torch.tensor(rows, device=self._places.device)

    def _embedded(self, tokens: Tensor) -> Tensor:
        found = functional.embedding(tokens, self._embedding)
        return found if self._scale == 1.0 else found * self._scale

    def _normed(self, text: Tensor, norm: Weight) -> Tensor:
        return functional.layer_norm(text, (self._width,), *norm)

    def _own(self, layer: _Layer, text: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rows, length = text.shape[:2]
        fused = layer.own(self._normed(text, layer.own_norm))
        query, key, value = fused.view(rows, length, 3, self._heads, self._head_width).unbind(2)
        return query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)

    def _question(self, layer: _Layer, text: Tensor) -> Tensor:
        rows, length = text.shape[:2]
        query = layer.query(self._normed(text, layer.sound_norm))
        return query.view(rows, length, self._heads, self._head_width).transpose(1, 2)

    def _rest(self, number: int, text: Tensor, rows: slice | Tensor) -> Tensor:
        """What follows attention to the text itself: attention to the sound of `rows`, and the wide part."""
        layer = self._layers[number]
        keys = self._sound_keys[number][rows].to(text.dtype)
        values = self._sound_values[number][rows].to(text.dtype)
        looks = torch.matmul(self._question(layer, text) * self.question_scale, keys).softmax(-1)
        text = text + layer.sound_out(self._merged(torch.matmul(looks, values)))
        return text + layer.narrow(layer.activate(layer.widen(self._normed(text, layer.norm))))

    def _attend(
        self,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        *,
        mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        seen = functional.scaled_dot_product_attention(
            query, keys, values, attn_mask=mask, is_causal=is_causal, scale=self.question_scale
        )
        return self._merged(seen)

    def _merged(self, heads: Tensor) -> Tensor:
        """[rows, heads, tokens, head width] to [rows, tokens, width]."""
        return heads.transpose(1, 2).reshape(heads.shape[0], heads.shape[2], self._width)


def _fused(layer: Any) -> _Layer:
    own, sound = layer.self_attn, layer.encoder_attn
    return _Layer(
        own_norm=norm_weight(layer.self_attn_layer_norm),
        own=Product(*joined_weights(own.q_proj, own.k_proj, own.v_proj)),
        own_out=_linear(own.out_proj),
        sound_norm=norm_weight(layer.encoder_attn_layer_norm),
        query=_linear(sound.q_proj),
        sound_out=_linear(sound.out_proj),
        norm=norm_weight(layer.final_layer_norm),
        widen=_linear(layer.fc1),
        narrow=_linear(layer.fc2),
        activate=layer.activation_fn,
    )


def norm_weight(norm: Any) -> Weight:
    return norm.weight, norm.bias


def _linear(linear: Any) -> Product:
    return Product(linear.weight, linear.bias)


def joined_weights(*linears: Any) -> tuple[Tensor, Tensor]:
    """One matrix for several; theirs become parts of it, so that nothing is in memory twice."""
    weight = torch.cat([linear.weight.data for linear in linears])
    bias = torch.cat([_bias(linear) for linear in linears])
    first = 0
    for linear in linears:
        rows = len(linear.weight)
        linear.weight.data = weight[first : first + rows]
        first += rows
    return weight, bias


def _bias(linear: Any) -> Tensor:
    zeros: Tensor = linear.weight.data.new_zeros(len(linear.weight))
    return zeros if linear.bias is None else linear.bias.data
