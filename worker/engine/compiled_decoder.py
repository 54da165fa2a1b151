"""The decoder on a processor: the same slots, one compiled pass instead of torch's operations.

Its caches, and the matrices it multiplies with, may be kept in float16 while the model is float32.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worker.engine import kernels
from worker.engine.kernels import Affine, Caches, Floats, Place, Weights
from worker.engine.text_decoder import Decoder, Product, Weight

_BITS = {torch.float16: torch.uint16, torch.bfloat16: torch.int16}


class CompiledDecoder(Decoder):
    """Over a float32 or bfloat16 model on a processor, whose activation is GELU. Not thread-safe."""

    def __init__(self, model: Any, slots: int, kept: torch.dtype | None = None) -> None:
        """`kept` is the format of caches and matrices: the model's own, or float16."""
        super().__init__(model, slots, kept)
        self._weights = [self._matrices(layer) for layer in self._layers]
        self._last_norm = _norm(self._norm)
        self._head = self._matrix(self._vocabulary)
        is_tied = self._vocabulary.weight is self._embedding
        self._pieces = self._head.weight if is_tied else _bits(self._embedding.to(self._kept))
        self._offsets = _floats(self._places)

    def __str__(self) -> str:
        return f"compiled, {str(self._kept).removeprefix('torch.')}"

    def step(self, tokens: Tensor, positions: Tensor, longest: int, first: int = 0) -> Tensor:
        place = Place(np.arange(first, first + len(tokens)), positions.numpy())
        text, _ = self._pass(tokens.numpy(), place)
        states = np.empty_like(text)
        kernels.norm(text, self._last_norm, states)
        logits = np.empty((len(states), len(self._head.weight)), np.float32)
        kernels.product(states, self._head, logits)
        return torch.from_numpy(logits)

    def read(self, row: int, tokens: Sequence[int]) -> None:
        self._pass(np.asarray(tokens), Place(np.full(len(tokens), row), np.arange(len(tokens))))

    def questions(
        self, rows: Sequence[int], texts: Sequence[Sequence[int]], layers: Sequence[int]
    ) -> list[Tensor]:
        """As with torch, but what has been written in the rows is written over."""
        lengths = [len(text) for text in texts]
        positions = np.concatenate([np.arange(length) for length in lengths])
        place = Place(np.repeat(np.asarray(rows), lengths), positions)
        _, asked = self._pass(np.concatenate([np.asarray(text) for text in texts]), place, last=layers[-1])
        return [self._padded(asked[layer], lengths) for layer in layers]

    def let_go(self, model: Any) -> None:
        """The model's own decoder cannot be run then."""
        if self._kept == model.dtype:
            return
        model.model.decoder.layers = torch.nn.ModuleList()
        for module in (model.model.decoder.embed_tokens, model.proj_out):
            module.weight = torch.nn.Parameter(module.weight.new_empty(0), requires_grad=False)
        self._embedding = self._embedding.new_empty(0)
        self._vocabulary = replace(self._vocabulary, weight=self._embedding)
        self._layers = []

    def _pass(
        self, tokens: NDArray[np.int64], place: Place, last: int | None = None
    ) -> tuple[Floats, list[Floats]]:
        """The text [tokens, width] after all layers, or up to `last`, and what each asked of the sound."""
        # Of this thread: it may be another one than that in which the model was loaded.
        numba.set_num_threads(min(torch.get_num_threads(), kernels.MOST_THREADS))
        text = np.empty((len(tokens), self._width), np.float32)
        kernels.embed(self._pieces, tokens, self._scale, self._offsets, place, text)
        asked: list[Floats] = []
        layers = list(zip(self._weights, self._views(), strict=True))
        for weights, caches in layers if last is None else layers[: last + 1]:
            asked.append(np.empty_like(text))
            kernels.layer(text, weights, caches, place, asked[-1])
        return text, asked

    def _padded(self, asked: Floats, lengths: Sequence[int]) -> Tensor:
        """[all tokens, width] to [rows, heads, tokens, head width]."""
        whole = np.zeros((len(lengths), max(lengths), self._width), np.float32)
        for row, part in enumerate(np.split(asked, np.cumsum(lengths)[:-1])):
            whole[row, : len(part)] = part
        return torch.from_numpy(whole).view(*whole.shape[:2], self._heads, -1).transpose(1, 2)

    def _matrices(self, layer: Any) -> Weights:
        return Weights(
            own_norm=_norm(layer.own_norm),
            own=self._matrix(layer.own),
            own_out=self._matrix(layer.own_out),
            sound_norm=_norm(layer.sound_norm),
            query=self._matrix(layer.query),
            sound_out=self._matrix(layer.sound_out),
            norm=_norm(layer.norm),
            widen=self._matrix(layer.widen),
            narrow=self._matrix(layer.narrow),
        )

    def _matrix(self, product: Product) -> Affine:
        weight, bias = product.weight.detach(), product.bias
        bias = weight.new_zeros(len(weight)) if bias is None else bias
        return Affine(_bits(weight.to(self._kept)), _floats(bias))

    def _views(self) -> list[Caches]:
        """Of the caches as they are now: a change of slots makes new ones."""
        caches = (self._keys, self._values, self._sound_keys, self._sound_values)
        return [Caches(*map(_bits, layer)) for layer in zip(*caches, strict=True)]


def _bits(kept: Tensor) -> NDArray[Any]:
    """The same memory."""
    view: NDArray[Any] = kept.view(_BITS.get(kept.dtype, kept.dtype)).numpy()
    return view


def _floats(tensor: Tensor) -> NDArray[np.float32]:
    return np.ascontiguousarray(tensor.detach().float().numpy())


def _norm(weight: Weight) -> Affine:
    return Affine(_floats(weight[0]), _floats(weight[1]))
