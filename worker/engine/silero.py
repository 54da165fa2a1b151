"""Silero's voice detector: a small network that says of every frame how likely it is speech.

Compiled, and in one thread without torch: it is heard beside the model, whose threads torch would share out
again for every product as small as these.
"""

from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from worker.engine.kernels import Affine, Floats, columns, compiled, exp
from worker.engine.spans import FRAME_SAMPLES, FramedDetector, Scores, SpeechParams
from worker.engine.values import Pcm, Span

FULL_SCALE = 32_768.0
CONTEXT_SAMPLES = 64
"""Each frame is heard together with the end of the one before it."""

STFT_SAMPLES = 256
STFT_HOP = 128
STFT_BINS = STFT_SAMPLES // 2 + 1
RIGHT_PAD = 64
WIDTH = 128
TIMES = (CONTEXT_SAMPLES + FRAME_SAMPLES + RIGHT_PAD - STFT_SAMPLES) // STFT_HOP + 1
LAST = CONTEXT_SAMPLES + FRAME_SAMPLES - 1
TAPS = 3
AT_ONCE = 32
"""Frames; what lies between their layers stays in the cache."""

WEIGHTS = Path("data", "silero_vad_16k.safetensors")


class Silero(NamedTuple):
    """The network's weights, each matrix [out, in]; of a convolution, in are its taps with their channels."""

    spectrum: Affine
    first: Affine
    second: Affine
    third: Affine
    fourth: Affine
    sound: Affine
    memory: Affine
    last: Affine


class SileroDetector:
    """Silero's network, run over all frames of a block at once."""

    def __init__(self, params: SpeechParams, network: Silero | None = None) -> None:
        self._network = network or load_network()
        self._context = np.zeros(CONTEXT_SAMPLES, np.float32)
        self._hidden, self._cell = np.zeros((2, 1, WIDTH), np.float32)
        self._framed = FramedDetector(params, self.score)

    def feed(self, pcm: Pcm, *, last: bool = False) -> list[Span]:
        return self._framed.feed(pcm, last=last)

    def score(self, frames: Pcm) -> Scores:
        """The network's word on the next frames, [frames, FRAME_SAMPLES]."""
        sound = np.concatenate([self._context, frames.ravel().astype(np.float32) / FULL_SCALE])
        self._context = sound[-CONTEXT_SAMPLES:].copy()
        scores = np.empty(len(frames), np.float32)
        _hear(sound.astype(np.float32), self._network, self._hidden, self._cell, scores)
        return scores


@compiled
def _hear(sound: Floats, network: Silero, hidden: Floats, cell: Floats, scores: Floats) -> None:
    """Of each frame in `sound`, which begins with the context of the first. `hidden` and `cell` [1, width]
    are the LSTM's state, carried on."""
    gates = np.empty((1, 4 * WIDTH), np.float32)
    for begin in range(0, len(scores), AT_ONCE):
        count = min(AT_ONCE, len(scores) - begin)
        features = _features(sound, begin, count, network)
        inner = np.empty((count, 4 * WIDTH), np.float32)
        columns(features, network.sound, inner, 0, 4 * WIDTH)
        for f in range(count):
            columns(hidden, network.memory, gates, 0, 4 * WIDTH)
            score = network.last.bias[0]
            for k in range(WIDTH):
                keep_in = _sigmoid(gates[0, k] + inner[f, k])
                keep = _sigmoid(gates[0, WIDTH + k] + inner[f, WIDTH + k])
                new = np.float32(2) * _sigmoid(
                    np.float32(2) * (gates[0, 2 * WIDTH + k] + inner[f, 2 * WIDTH + k])
                ) - np.float32(1)
                show = _sigmoid(gates[0, 3 * WIDTH + k] + inner[f, 3 * WIDTH + k])
                cell[0, k] = keep * cell[0, k] + keep_in * new
                hidden[0, k] = show * (np.float32(2) * _sigmoid(np.float32(2) * cell[0, k]) - np.float32(1))
                score += max(hidden[0, k], np.float32(0)) * network.last.weight[0, k]
            scores[begin + f] = _sigmoid(score)


@compiled
def _sigmoid(x: Any) -> Any:
    return np.float32(1) / (np.float32(1) + exp(-x))


@compiled
def _features(sound: Floats, begin: int, count: int, network: Silero) -> Any:
    """What the LSTM hears of each frame, [frames, width]: no frame sees another but for its context."""
    pieces = np.empty((count * TIMES, STFT_SAMPLES), np.float32)
    for f in range(count):
        start = (begin + f) * FRAME_SAMPLES
        for t in range(TIMES):
            for k in range(STFT_SAMPLES):
                # What is beyond the frame's end is its end, mirrored.
                at = t * STFT_HOP + k
                pieces[f * TIMES + t, k] = sound[start + min(at, 2 * LAST - at)]
    waves = np.empty((count * TIMES, 2 * STFT_BINS), np.float32)
    columns(pieces, network.spectrum, waves, 0, 2 * STFT_BINS)
    heard = np.empty((count * TIMES, STFT_BINS), np.float32)
    for r in range(count * TIMES):
        for k in range(STFT_BINS):
            real, imaginary = waves[r, k], waves[r, STFT_BINS + k]
            heard[r, k] = np.sqrt(real * real + imaginary * imaginary)
    heard = _convolved(heard, count, 1, network.first)
    heard = _convolved(heard, count, 2, network.second)
    heard = _convolved(heard, count, 2, network.third)
    return _convolved(heard, count, 1, network.fourth)


@compiled
def _convolved(heard: Floats, count: int, stride: int, by: Affine) -> Any:
    """`heard` [frames x times, channels] through a convolution and a ReLU; beyond a frame is silence."""
    times, channels = len(heard) // count, heard.shape[1]
    after = -(-times // stride)
    taps = np.zeros((count * after, TAPS * channels), np.float32)
    for f in range(count):
        for t in range(after):
            for tap in range(TAPS):
                source = t * stride + tap - 1
                if 0 <= source < times:
                    for k in range(channels):
                        taps[f * after + t, tap * channels + k] = heard[f * times + source, k]
    out = np.empty((count * after, len(by.bias)), np.float32)
    columns(taps, by, out, 0, len(by.bias))
    for r in range(len(out)):
        for k in range(out.shape[1]):
            out[r, k] = max(out[r, k], np.float32(0))
    return out


@cache
def load_network() -> Silero:
    """The weights lie in the silero_vad package, which is not imported: it would load more than we need.

    They are another training of the network in the package's TorchScript file, as good on our recordings:
    https://github.com/snakers4/silero-vad/issues/768
    """
    package = find_spec("silero_vad")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("silero_vad, which carries the detector's weights, is not installed")
    weights = load_file(Path(package.origin).parent / WEIGHTS)
    return network_of({name.replace("lstm_cell.", "lstm."): weight for name, weight in weights.items()})


def network_of(weights: Mapping[str, NDArray[np.float32]]) -> Silero:
    """From weights as the package names them."""

    def convolution(name: str) -> Affine:
        weight = weights[f"{name}.weight"].transpose(0, 2, 1)
        return _affine(weight.reshape(len(weight), -1), weights.get(f"{name}.bias"))

    return Silero(
        spectrum=convolution("stft_conv"),
        first=convolution("conv1"),
        second=convolution("conv2"),
        third=convolution("conv3"),
        fourth=convolution("conv4"),
        sound=_affine(weights["lstm.weight_ih"], weights["lstm.bias_ih"]),
        memory=_affine(weights["lstm.weight_hh"], weights["lstm.bias_hh"]),
        last=convolution("final_conv"),
    )


def _affine(weight: NDArray[np.float32], bias: NDArray[np.float32] | None) -> Affine:
    kept = np.ascontiguousarray(weight, np.float32)
    return Affine(kept, np.zeros(len(kept), np.float32) if bias is None else np.ascontiguousarray(bias))
