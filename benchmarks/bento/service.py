"""BentoML's side of the comparison: three services on the bundled weights, each started with `bentoml serve`.

    Seed           as the server that this one grew from: one file at a time, its first 30 s
    Batched        the same, with what BentoML is chosen for: the model apart from the API, adaptive batching
    BatchedWhole   that, and all of the audio: each file is cut every 30 s and its windows are batched

Read by BentoML in its own environment; nothing of ours is imported.
"""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import bentoml
import librosa
import numpy as np
import torch
from bentoml.validators import ContentType
from transformers import WhisperForConditionalGeneration, WhisperProcessor, logging

MODEL = Path(__file__).resolve().parents[2] / "models" / "synthetic-en"
RATE = 16_000
WINDOW_S = 30
BATCH = 8
TIMEOUT_S = 60
"""The seed's, and BentoML's default."""
PATIENCE_S = 300
"""Of the other two: whole files of minutes, twenty at once, are not done in a minute."""

logging.set_verbosity_error()

RecordingFile = Annotated[Path, ContentType("audio/*")]
Features = np.ndarray[Any, np.dtype[np.float32]]


@bentoml.service(
    name="seed",
    resources={"cpu": "2"},
    traffic={"timeout": TIMEOUT_S, "max_concurrency": 10},
)
class Seed:
    """The seed's own settings, one `generate()` a file, and its answer to a failure: 200."""

    def __init__(self) -> None:
        self._processor = WhisperProcessor.from_pretrained(MODEL)
        self._model = _weights()

    @bentoml.api
    def transcribe(self, audio_file: RecordingFile) -> dict[str, Any]:
        began = time.perf_counter()
        try:
            sound, _ = librosa.load(str(audio_file), sr=RATE)
            features = self._processor(sound, sampling_rate=RATE, return_tensors="pt").input_features
            asked = time.perf_counter()
            with torch.no_grad():
                tokens = self._model.generate(features)
            inference_s = time.perf_counter() - asked
            text = self._processor.batch_decode(tokens, skip_special_tokens=True)[0]
        except Exception as error:
            return {"error": "Transcription failed", "message": str(error)}
        return _answer(text, len(sound), began, inference_s)

    @bentoml.api
    def health(self) -> dict[str, str]:
        return {"status": "healthy", "model": MODEL.name, "device": "cpu", "torch_version": torch.__version__}


@bentoml.service(name="model", resources={"cpu": "2"}, traffic={"timeout": PATIENCE_S, "concurrency": BATCH})
class Model:
    """Holds the weights in a process of its own and takes windows of all files together."""

    def __init__(self) -> None:
        self._processor = WhisperProcessor.from_pretrained(MODEL)
        self._model = _weights()

    @bentoml.api(batchable=True, batch_dim=0, max_batch_size=BATCH, max_latency_ms=PATIENCE_S * 1000)
    def generate(self, features: Features) -> list[str]:
        with torch.no_grad():
            tokens = self._model.generate(torch.from_numpy(np.array(features)))
        return self._processor.batch_decode(tokens, skip_special_tokens=True)


@bentoml.service(name="batched", resources={"cpu": "2"}, traffic={"timeout": PATIENCE_S})
class Batched:
    """Reads and prepares files while the model works. Takes in whoever comes: what waits can be batched."""

    model = bentoml.depends(Model)

    def __init__(self) -> None:
        self._processor = WhisperProcessor.from_pretrained(MODEL)

    @bentoml.api
    async def transcribe(self, audio_file: RecordingFile) -> dict[str, Any]:
        return await _batched(self._processor, self.model, audio_file, most_windows=1)


@bentoml.service(name="batched_whole", resources={"cpu": "2"}, traffic={"timeout": PATIENCE_S})
class BatchedWhole:
    model = bentoml.depends(Model)

    def __init__(self) -> None:
        self._processor = WhisperProcessor.from_pretrained(MODEL)

    @bentoml.api
    async def transcribe(self, audio_file: RecordingFile) -> dict[str, Any]:
        return await _batched(self._processor, self.model, audio_file, most_windows=None)


async def _batched(
    processor: WhisperProcessor, model: Any, path: Path, most_windows: int | None
) -> dict[str, Any]:
    began = time.perf_counter()
    features, size = await asyncio.to_thread(_prepare, processor, path, most_windows)
    asked = time.perf_counter()
    texts: Sequence[str] = await model.to_async.generate(features)
    return _answer(" ".join(texts), size, began, time.perf_counter() - asked)


def _prepare(processor: WhisperProcessor, path: Path, most_windows: int | None) -> tuple[Features, int]:
    """A row for each 30 s, the last one filled up with silence; and how many samples the file has."""
    sound, _ = librosa.load(str(path), sr=RATE)
    size = WINDOW_S * RATE
    pieces = [sound[start : start + size] for start in range(0, len(sound), size)][:most_windows]
    features = processor(pieces, sampling_rate=RATE, return_tensors="np").input_features
    return np.asarray(features, np.float32), len(sound)


def _weights() -> Any:
    """In float32, as the seed computes on a processor: Transformers 5 would keep the float16 of the file."""
    return WhisperForConditionalGeneration.from_pretrained(MODEL, dtype=torch.float32).eval()


def _answer(text: str, samples: int, began: float, inference_s: float) -> dict[str, Any]:
    took_s, seconds = time.perf_counter() - began, samples / RATE
    return {
        "transcript": text.strip(),
        "metadata": {
            "audio_duration_sec": round(seconds, 2),
            "processing_time_sec": round(took_s, 2),
            "inference_time_sec": round(inference_s, 2),
            "rtf": round(took_s / seconds, 3) if seconds else 0,
            "device": "cpu",
        },
    }
