"""One layer of the decoder on a processor, compiled: a few tokens at any positions of any rows, in one call.

As torch's operations a step of a small model is mostly the calls, and one of a large model mostly the reading
of caches at twice the width they need. Numbers are kept as float32, as float16 or as bfloat16 and computed in
float32. A token's numbers do not depend on the tokens beside it, but for rounding.
"""

import math
from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import ir
from numba import njit, prange, types
from numba.extending import intrinsic, overload
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bits = NDArray[Any]
"""Numbers as they are kept: float32, bits of float16 in uint16, or bits of bfloat16 in int16."""

BLOCK = 16
"""Columns of a product that a thread does at once."""

EPSILON = 1e-5
"""Of a layer norm, as in every checkpoint."""


class Affine(NamedTuple):
    """A matrix [out, in] as it is kept, or a norm's factors [width]; and what is added."""

    weight: Bits
    bias: Floats


class Weights(NamedTuple):
    """Of a layer. `own` gives query, key and value of the text, `query` what is asked of the sound."""

    own_norm: Affine
    own: Affine
    own_out: Affine
    sound_norm: Affine
    query: Affine
    sound_out: Affine
    norm: Affine
    widen: Affine
    narrow: Affine


class Caches(NamedTuple):
    """Of a layer: [slots, heads, positions, head width], but for the sound's keys, which lie across:
    [slots, heads, head width, positions]."""

    keys: Bits
    values: Bits
    sound_keys: Bits
    sound_values: Bits


class Place(NamedTuple):
    """Of each token: its row in the caches, and its position there."""

    rows: NDArray[np.int64]
    positions: NDArray[np.int64]


# The one whose threads are ready at once: the others take longer to begin than a small product does.
numba.config.THREADING_LAYER = "omp"
MOST_THREADS = int(numba.config.NUMBA_NUM_THREADS)


def _can_keep() -> bool:
    """Whether what is compiled may be written somewhere, for the next start."""
    try:
        njit(cache=True)(_can_keep)
    except RuntimeError:
        return False
    return True


# Sums in any order, so that they take many lanes; but what is no number stays none.
_SUMS = {"reassoc", "nsz", "arcp", "contract", "afn"}
_settings: dict[str, Any] = {"nogil": True, "cache": _can_keep(), "error_model": "numpy", "fastmath": _SUMS}
compiled = njit(**_settings)
_in_threads = njit(parallel=True, **_settings)
_inline = njit(inline="always", **_settings)


@intrinsic
def _from_float16(typing: Any, bits: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.fpext(builder.bitcast(values[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.uint16), build


@intrinsic
def _to_float16(typing: Any, number: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.bitcast(builder.fptrunc(values[0], ir.HalfType()), ir.IntType(16))

    return types.uint16(types.float32), build


@intrinsic
def _as_float(typing: Any, bits: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.bitcast(values[0], ir.FloatType())

    return types.float32(types.int32), build


@intrinsic
def _as_bits(typing: Any, number: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.bitcast(values[0], ir.IntType(32))

    return types.int32(types.float32), build


def wide(kept: Any) -> Any:
    """A number as it is kept, in float32."""
    raise NotImplementedError


def narrow(number: Any, like: Any) -> Any:
    """The other way round, to the nearest that can be kept `like` that one."""
    raise NotImplementedError


@overload(wide, inline="always")
def _wide(kept: Any) -> Any:
    def same(kept: Any) -> Any:
        return kept

    def from_float16(kept: Any) -> Any:
        return _from_float16(kept)

    def from_bfloat16(kept: Any) -> Any:
        return _as_float(np.int32(kept) << np.int32(16))

    return {types.float32: same, types.uint16: from_float16}.get(kept, from_bfloat16)


@overload(narrow, inline="always")
def _narrow(number: Any, like: Any) -> Any:
    def same(number: Any, like: Any) -> Any:
        return number

    def to_float16(number: Any, like: Any) -> Any:
        return _to_float16(number)

    def to_bfloat16(number: Any, like: Any) -> Any:
        return np.int16((_as_bits(number) + np.int32(0x8000)) >> np.int32(16))

    return {types.float32: same, types.uint16: to_float16}.get(like, to_bfloat16)


@_inline
def exp(x: Any) -> Any:
    """Within two units of the last place between -87 and 88, and in as many lanes as there are: the library's
    takes one."""
    x = min(max(x, np.float32(-87)), np.float32(88))
    whole = np.floor(x * np.float32(1.44269504) + np.float32(0.5))
    x = x - whole * np.float32(0.693359375) + whole * np.float32(2.12194440e-4)
    y = np.float32(1.9875691500e-4)
    y = y * x + np.float32(1.3981999507e-3)
    y = y * x + np.float32(8.3334519073e-3)
    y = y * x + np.float32(4.1665795894e-2)
    y = y * x + np.float32(1.6666665459e-1)
    y = y * x + np.float32(5.0000001201e-1)
    y = y * x * x + x + np.float32(1)
    return y * _as_float((np.int32(whole) + np.int32(127)) << np.int32(23))


@_inline
def gelu(x: Any) -> Any:
    """Of the error function, to 1.5e-7 (Abramowitz and Stegun, 7.1.26)."""
    z = abs(x) * np.float32(math.sqrt(0.5))
    t = np.float32(1) / (np.float32(1) + np.float32(0.3275911) * z)
    y = np.float32(1.061405429) * t - np.float32(1.453152027)
    y = (y * t + np.float32(1.421413741)) * t - np.float32(0.284496736)
    y = (y * t + np.float32(0.254829592)) * t
    erf = np.float32(1) - y * exp(-z * z)
    return np.float32(0.5) * (x + abs(x) * erf)


@compiled
def _four_rows(rows: Floats, matrix: Affine, out: Floats, n: int) -> None:
    """Two columns of a product for four rows: each number of the matrix is read once for all of them."""
    left, right = matrix.weight[n], matrix.weight[n + 1]
    a, b, c, d = rows[0], rows[1], rows[2], rows[3]
    a0 = a1 = b0 = b1 = c0 = c1 = d0 = d1 = np.float32(0)
    for k in range(len(left)):
        x, y = wide(left[k]), wide(right[k])
        a0 += a[k] * x
        a1 += a[k] * y
        b0 += b[k] * x
        b1 += b[k] * y
        c0 += c[k] * x
        c1 += c[k] * y
        d0 += d[k] * x
        d1 += d[k] * y
    x, y = matrix.bias[n], matrix.bias[n + 1]
    out[0, n], out[0, n + 1] = a0 + x, a1 + y
    out[1, n], out[1, n + 1] = b0 + x, b1 + y
    out[2, n], out[2, n + 1] = c0 + x, c1 + y
    out[3, n], out[3, n + 1] = d0 + x, d1 + y


@compiled
def _one_row(row: Floats, matrix: Affine, out: Floats, n: int) -> None:
    """Four columns of a product for one row."""
    weight, bias = matrix
    a, b, c, d = weight[n], weight[n + 1], weight[n + 2], weight[n + 3]
    a0 = b0 = c0 = d0 = np.float32(0)
    for k in range(len(row)):
        x = row[k]
        a0 += x * wide(a[k])
        b0 += x * wide(b[k])
        c0 += x * wide(c[k])
        d0 += x * wide(d[k])
    out[n], out[n + 1] = a0 + bias[n], b0 + bias[n + 1]
    out[n + 2], out[n + 3] = c0 + bias[n + 2], d0 + bias[n + 3]


@compiled
def columns(rows: Floats, matrix: Affine, out: Floats, first: int, last: int) -> None:
    """Some columns of a product: `rows` [n, in] times the matrix, into `out` [n, out]; out is 4 at least."""
    count = len(matrix.weight)
    grouped = len(rows) // 4 * 4
    for r in range(0, grouped, 4):
        for n in range(first, last, 2):
            # The last of an odd number is done with its neighbour once more, to the same.
            _four_rows(rows[r : r + 4], matrix, out[r : r + 4], min(n, count - 2))
    for r in range(grouped, len(rows)):
        for n in range(first, last, 4):
            _one_row(rows[r], matrix, out[r], min(n, count - 4))


@_in_threads
def product(rows: Floats, matrix: Affine, out: Floats) -> None:
    for block in prange(-(-len(matrix.weight) // BLOCK)):
        columns(rows, matrix, out, block * BLOCK, min(block * BLOCK + BLOCK, len(matrix.weight)))


@compiled
def norm(rows: Floats, by: Affine, out: Floats) -> None:
    """Layer norm of `rows` [n, width]."""
    weight, bias = by
    width = np.float32(rows.shape[1])
    for r in range(len(rows)):
        row = rows[r]
        total = np.float32(0)
        for k in range(len(row)):
            total += row[k]
        mean = total / width
        squares = np.float32(0)
        for k in range(len(row)):
            squares += (row[k] - mean) * (row[k] - mean)
        factor = np.float32(1) / np.sqrt(squares / width + np.float32(EPSILON))
        for k in range(len(row)):
            out[r, k] = (row[k] - mean) * factor * weight[k] + bias[k]


@njit(**_settings | {"fastmath": True})
def _largest(scores: Floats) -> Any:
    largest = scores[0]
    for p in range(len(scores)):
        largest = max(largest, scores[p])
    return largest


@compiled
def _seen(scores: Floats, values: Bits, out: Floats) -> None:
    """The values [positions, head width] by the softmax of their scores."""
    largest = _largest(scores)
    total = np.float32(0)
    for p in range(len(scores)):
        share = exp(scores[p] - largest)
        scores[p] = share
        total += share
    for k in range(len(out)):
        out[k] = np.float32(0)
    grouped = len(scores) // 4 * 4
    for p in range(0, grouped, 4):
        a, b, c, d = scores[p], scores[p + 1], scores[p + 2], scores[p + 3]
        for k in range(len(out)):
            out[k] += (
                a * wide(values[p, k])
                + b * wide(values[p + 1, k])
                + c * wide(values[p + 2, k])
                + d * wide(values[p + 3, k])
            )
    for p in range(grouped, len(scores)):
        for k in range(len(out)):
            out[k] += scores[p] * wide(values[p, k])
    for k in range(len(out)):
        out[k] /= total


@compiled
def _look_at_text(query: Floats, keys: Bits, values: Bits, out: Floats) -> None:
    """One head of one token; keys and values [positions, head width] are those it may see."""
    scale = np.float32(1) / np.sqrt(np.float32(len(query)))
    scores = np.empty(len(keys), np.float32)
    for p in range(len(keys)):
        score = np.float32(0)
        for k in range(len(query)):
            score += query[k] * wide(keys[p, k])
        scores[p] = score * scale
    _seen(scores, values, out)


@compiled
def _look_at_sound(query: Floats, keys: Bits, values: Bits, out: Floats) -> None:
    """The same with keys [head width, positions]; head width is a multiple of 4."""
    scale = np.float32(1) / np.sqrt(np.float32(len(query)))
    scores = np.zeros(keys.shape[1], np.float32)
    for k in range(0, len(query), 4):
        a, b, c, d = query[k] * scale, query[k + 1] * scale, query[k + 2] * scale, query[k + 3] * scale
        for p in range(len(scores)):
            scores[p] += (
                a * wide(keys[k, p])
                + b * wide(keys[k + 1, p])
                + c * wide(keys[k + 2, p])
                + d * wide(keys[k + 3, p])
            )
    _seen(scores, values, out)


@compiled
def _remember(fused: Floats, caches: Caches, place: Place) -> None:
    """Each token's own key and value, [3 x width] of `fused` but for its first third, into the caches."""
    heads, head_width = caches.keys.shape[1], caches.keys.shape[3]
    width = heads * head_width
    like = caches.keys[0, 0, 0, 0]
    for t in range(len(fused)):
        row, position = place.rows[t], place.positions[t]
        for h in range(heads):
            for k in range(head_width):
                at = width + h * head_width + k
                caches.keys[row, h, position, k] = narrow(fused[t, at], like)
                caches.values[row, h, position, k] = narrow(fused[t, at + width], like)


@_in_threads
def _see_text(fused: Floats, caches: Caches, place: Place, out: Floats) -> None:
    """Attention of each token to the text of its row up to itself."""
    tokens, heads, head_width = len(fused), caches.keys.shape[1], caches.keys.shape[3]
    for unit in prange(heads * tokens):
        # Head by head: tokens of one row find its keys and values near.
        h, t = unit // tokens, unit % tokens
        row, length = place.rows[t], place.positions[t] + 1
        a, b = h * head_width, (h + 1) * head_width
        keys, values = caches.keys[row, h, :length], caches.values[row, h, :length]
        _look_at_text(fused[t, a:b], keys, values, out[t, a:b])


@_in_threads
def _see_sound(queries: Floats, caches: Caches, place: Place, out: Floats) -> None:
    """Attention of each token to the whole sound of its row."""
    tokens, heads, head_width = len(queries), caches.keys.shape[1], caches.keys.shape[3]
    for unit in prange(heads * tokens):
        h, t = unit // tokens, unit % tokens
        row = place.rows[t]
        a, b = h * head_width, (h + 1) * head_width
        _look_at_sound(queries[t, a:b], caches.sound_keys[row, h], caches.sound_values[row, h], out[t, a:b])


@compiled
def _add(text: Floats, more: Floats) -> None:
    for t in range(len(text)):
        for k in range(text.shape[1]):
            text[t, k] += more[t, k]


@compiled
def embed(
    pieces: Bits, tokens: NDArray[np.int64], scale: float, offsets: Floats, place: Place, out: Floats
) -> None:
    """Each token as the first layer sees it; `offsets` [positions, width] are those of the positions."""
    for t in range(len(tokens)):
        for k in range(out.shape[1]):
            number = wide(pieces[tokens[t], k]) * np.float32(scale)
            out[t, k] = number + offsets[place.positions[t], k]


@compiled
def layer(text: Floats, weights: Weights, caches: Caches, place: Place, asked: Floats) -> None:
    """`text` [tokens, width] through one layer, in place; `asked` [tokens, width] is filled with what each
    token asks of the sound."""
    tokens, width = text.shape
    normed, seen = np.empty_like(text), np.empty_like(text)
    fused = np.empty((tokens, 3 * width), np.float32)
    inner = np.empty((tokens, len(weights.widen.bias)), np.float32)
    norm(text, weights.own_norm, normed)
    product(normed, weights.own, fused)
    _remember(fused, caches, place)
    _see_text(fused, caches, place, seen)
    product(seen, weights.own_out, normed)
    _add(text, normed)
    norm(text, weights.sound_norm, normed)
    product(normed, weights.query, asked)
    _see_sound(asked, caches, place, seen)
    product(seen, weights.sound_out, normed)
    _add(text, normed)
    norm(text, weights.norm, normed)
    product(normed, weights.widen, inner)
    for t in range(tokens):
        for k in range(inner.shape[1]):
            inner[t, k] = gelu(inner[t, k])
    product(inner, weights.narrow, normed)
    _add(text, normed)
