"""Step 6, detect: which stretches of a recording are speech. Two detectors behind one port: a small
network, and one that takes everything but digital silence for speech.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from worker.engine.values import SAMPLE_RATE, Detector, Pcm, Span

FRAME_SAMPLES = 512
"""32 ms, the network's step; the other detector keeps to it."""

FULL_SCALE = 32_768.0
HYSTERESIS = 0.15
"""Speech begins at the threshold and lasts until the probability is this much below it."""

LOWEST_EXIT = 0.01

CONTEXT_SAMPLES = 64
"""Each frame is heard together with the end of the one before it."""

AUDIBLE = 1
"""The last bit may be dither."""

Scores = NDArray[np.float32]
"""One speech probability per frame."""


@dataclass(frozen=True, slots=True)
class SpeechParams:
    """`threshold` is a probability. Gaps shorter than `min_silence_s` do not split speech, speech shorter
    than `min_speech_s` is none, and every span is widened by `pad_s` on both sides."""

    threshold: float = 0.5
    min_silence_s: float = 0.5
    min_speech_s: float = 0.1
    pad_s: float = 0.3


DIGITAL_SILENCE = SpeechParams(min_silence_s=2.0, min_speech_s=0.0)
"""With detection off a stretch must be long, and hold nothing at all, to be left out."""


def detector_for(enabled: bool, params: SpeechParams) -> Detector:
    """A fresh detector for one file."""
    return SileroDetector(params) if enabled else SoundDetector()


class SileroDetector:
    """Silero's network, run over all frames of a block at once."""

    def __init__(self, params: SpeechParams, network: "SileroNetwork | None" = None) -> None:
        self._network = network or load_network()
        self._memory: Memory | None = None
        self._context = torch.zeros(CONTEXT_SAMPLES)
        self._framed = FramedDetector(params, self.score)

    def feed(self, pcm: Pcm, *, last: bool = False) -> list[Span]:
        return self._framed.feed(pcm, last=last)

    def score(self, frames: Pcm) -> Scores:
        """The network's word on the next frames, [frames, FRAME_SAMPLES]."""
        sound = torch.from_numpy(frames.astype(np.float32) / FULL_SCALE)
        with torch.inference_mode():
            scores, self._memory = self._network(with_context(sound, self._context), self._memory)
        self._context = sound[-1, -CONTEXT_SAMPLES:]
        found: Scores = scores.numpy()
        return found


class SoundDetector:
    """Everything is speech, for callers who know better, except long digital silence: it can hold none, costs
    as much to transcribe as any sound, and is what models invent text on."""

    def __init__(self) -> None:
        self._framed = FramedDetector(DIGITAL_SILENCE, _has_sound)

    def feed(self, pcm: Pcm, *, last: bool = False) -> list[Span]:
        return self._framed.feed(pcm, last=last)


class FramedDetector:
    """Cuts blocks into frames, has them scored, and turns the scores into spans."""

    def __init__(self, params: SpeechParams, score: Callable[[Pcm], Scores]) -> None:
        self._score = score
        self._tracker = SpeechTracker(params)
        self._rest: Pcm = np.zeros(0, np.int16)
        self._fed_samples = 0

    def feed(self, pcm: Pcm, *, last: bool) -> list[Span]:
        self._fed_samples += len(pcm)
        sound = np.concatenate([self._rest, pcm])
        if last:
            sound = np.pad(sound, (0, -len(sound) % FRAME_SAMPLES))
        whole = len(sound) - len(sound) % FRAME_SAMPLES
        self._rest = sound[whole:].copy()
        frames = sound[:whole].reshape(-1, FRAME_SAMPLES)
        if len(frames):
            for score in self._score(frames).tolist():
                self._tracker.hear(score)
        return self._tracker.settle(self._fed_samples if last else None)


class SpeechTracker:
    """From scores to spans, with Silero's hysteresis. A span still open when it is asked for is handed out
    in pieces that touch, so that speech without end never piles up."""

    def __init__(self, params: SpeechParams) -> None:
        self._threshold = params.threshold
        self._exit = max(params.threshold - HYSTERESIS, LOWEST_EXIT)
        self._pad = round(params.pad_s * SAMPLE_RATE)
        self._min_speech = round(params.min_speech_s * SAMPLE_RATE)
        # Spans whose padding meets are one anyway; to wait for the padding keeps every end inside the file.
        self._min_silence = max(round(params.min_silence_s * SAMPLE_RATE), self._pad)
        self._position = 0
        self._speech_start: int | None = None
        self._silence_start: int | None = None
        self._settled = 0
        self._found: list[Span] = []

    def hear(self, score: float) -> None:
        frame_start = self._position
        self._position += FRAME_SAMPLES
        if score >= self._threshold:
            self._silence_start = None
            if self._speech_start is None:
                self._speech_start = frame_start
        elif self._speech_start is not None and score < self._exit:
            if self._silence_start is None:
                self._silence_start = frame_start
            if self._position - self._silence_start >= self._min_silence:
                self._close(self._speech_start, self._silence_start)

    def settle(self, total_samples: int | None) -> list[Span]:
        """What is certain since the last call; all there is once the file's length is given."""
        if self._speech_start is not None:
            heard_end = self._position if self._silence_start is None else self._silence_start
            if total_samples is not None:
                self._close(self._speech_start, heard_end)
            elif heard_end - self._speech_start >= self._min_speech:
                padded = heard_end if self._silence_start is None else heard_end + self._pad
                self._find(self._speech_start - self._pad, min(padded, self._position))
        found, self._found = self._found, []
        if total_samples is None:
            return found
        # The last frame was filled up with silence that is not in the file.
        inside = (span for span in found if span.start < total_samples)
        return [replace(span, end=min(span.end, total_samples)) for span in inside]

    def _close(self, start: int, end: int) -> None:
        if end - start >= self._min_speech:
            self._find(start - self._pad, end + self._pad)
        self._speech_start = self._silence_start = None

    def _find(self, start: int, end: int) -> None:
        start = max(start, self._settled)
        if end <= start:
            return
        self._settled = end
        if self._found and self._found[-1].end == start:
            self._found[-1] = replace(self._found[-1], end=end)
        else:
            self._found.append(Span(start, end))


Memory = tuple[Tensor, Tensor]
"""The LSTM's state, carried from block to block."""

STFT_SAMPLES = 256
STFT_HOP = 128
STFT_BINS = STFT_SAMPLES // 2 + 1
RIGHT_PAD = 64
WIDTH = 128
WEIGHTS = Path("data", "silero_vad_16k.safetensors")


class SileroNetwork(nn.Module):
    """Silero's 16 kHz network. The layers before the LSTM see one frame at a time, so all frames of a block
    go through them as one batch."""

    def __init__(self) -> None:
        super().__init__()
        self.stft_conv = nn.Conv1d(1, 2 * STFT_BINS, STFT_SAMPLES, stride=STFT_HOP, bias=False)
        self.conv1 = nn.Conv1d(STFT_BINS, WIDTH, 3, padding=1)
        self.conv2 = nn.Conv1d(WIDTH, WIDTH // 2, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(WIDTH // 2, WIDTH // 2, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(WIDTH // 2, WIDTH, 3, padding=1)
        self.lstm = nn.LSTM(WIDTH, WIDTH)
        self.final_conv = nn.Conv1d(WIDTH, 1, 1)

    def forward(self, frames: Tensor, memory: Memory | None) -> tuple[Tensor, Memory]:
        """[frames, context + frame samples] -> [frames] speech probabilities."""
        padded = functional.pad(frames, (0, RIGHT_PAD), mode="reflect")
        spectrum = self.stft_conv(padded.unsqueeze(1))
        sound = torch.hypot(spectrum[:, :STFT_BINS], spectrum[:, STFT_BINS:])
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            sound = conv(sound).relu()
        hidden, memory = self.lstm(sound.squeeze(-1), memory)
        scores = self.final_conv(hidden.relu().unsqueeze(-1)).sigmoid()
        return scores.flatten(), memory


def load_network() -> SileroNetwork:
    """The weights lie in the silero_vad package, which is not imported: it would load more than we need.

    They are another training of the network in the package's TorchScript file, as good on our recordings:
    https://github.com/snakers4/silero-vad/issues/768
    """
    package = find_spec("silero_vad")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("silero_vad, which carries the detector's weights, is not installed")
    weights = load_file(Path(package.origin).parent / WEIGHTS)
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        weights[f"lstm.{name}_l0"] = weights.pop(f"lstm_cell.{name}")
    network = SileroNetwork()
    network.load_state_dict(weights)
    return network.eval()


def with_context(frames: Tensor, context: Tensor) -> Tensor:
    """Each frame with the last samples of the one before it in front; `context` is that of the first."""
    before = torch.cat([context.unsqueeze(0), frames[:-1, -CONTEXT_SAMPLES:]])
    return torch.cat([before, frames], dim=1)


def _has_sound(frames: Pcm) -> Scores:
    scores: Scores = np.any((frames > AUDIBLE) | (frames < -AUDIBLE), axis=1).astype(np.float32)
    return scores
