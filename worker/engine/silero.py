"""Silero's voice detector: a small network that says of every frame how likely it is speech."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from worker.engine.spans import FramedDetector, Scores, SpeechParams
from worker.engine.values import Pcm, Span

FULL_SCALE = 32_768.0
CONTEXT_SAMPLES = 64
"""Each frame is heard together with the end of the one before it."""

Memory = tuple[Tensor, Tensor]
"""The LSTM's state, carried from block to block."""

STFT_SAMPLES = 256
STFT_HOP = 128
STFT_BINS = STFT_SAMPLES // 2 + 1
RIGHT_PAD = 64
WIDTH = 128
WEIGHTS = Path("data", "silero_vad_16k.safetensors")


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
