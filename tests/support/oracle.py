"""What Hugging Face's own `generate` makes of recordings with the bundled weights: the measure for ours."""

import json
import re
from collections.abc import Mapping
from typing import Any

import soundfile
import torch
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from tests.support.service import SAMPLES

SAMPLE_RATE = 16_000
MARGIN_S = 0.2
BATCH = 8


def references() -> dict[str, Any]:
    """By file name: the whole text, and each sentence with its exact times."""
    loaded: dict[str, Any] = json.loads((SAMPLES / "references.json").read_text())
    return loaded


def words(text: str) -> str:
    """Lower case, no punctuation."""
    return " ".join(re.sub(r"[^a-z' ]", " ", text.lower()).split())


def transcribe(names: Mapping[str, Any], dtype: torch.dtype) -> str:
    """All sentences of all recordings, each cut out by its exact times, greedily decoded."""
    folder = SAMPLES.parent / "synthetic-en"
    model = WhisperForConditionalGeneration.from_pretrained(folder, dtype=dtype).eval()
    processor = WhisperProcessor.from_pretrained(folder)
    sentences = [sentence for name in names for sentence in _sentences(name, names[name])]
    texts: list[str] = []
    for start in range(0, len(sentences), BATCH):
        features = processor.feature_extractor(
            sentences[start : start + BATCH], sampling_rate=SAMPLE_RATE, return_tensors="pt"
        ).input_features.to(dtype)
        tokens = model.generate(
            features, language="en", task="transcribe", return_timestamps=True, max_new_tokens=120
        )
        texts += processor.batch_decode(tokens, skip_special_tokens=True)
    return words(" ".join(texts))


def _sentences(name: str, reference: Mapping[str, Any]) -> list[Any]:
    pcm, _ = soundfile.read(SAMPLES / name, dtype="float32")
    return [
        pcm[
            max(0, int((sentence["start"] - MARGIN_S) * SAMPLE_RATE)) : int(
                (sentence["end"] + MARGIN_S) * SAMPLE_RATE
            )
        ]
        for sentence in reference["segments"]
    ]
