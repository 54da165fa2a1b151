"""Checkpoints of Whisper's shapes with random weights; their words are the bundled model's."""

import json
import shutil
from pathlib import Path

import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration

from shared.models import ModelSource
from tests.support.service import SAMPLES
from worker.engine.loading import Loaded, load

BUNDLED = SAMPLES.parent / "synthetic-en"

SHAPES = {"nano": (2, 4, 128), "tiny": (4, 6, 384), "base": (6, 8, 512), "small": (12, 12, 768)}
"""Decoder layers, heads and width."""

ENCODER_LAYERS = 1
"""The encoder is Transformers' own: a thin one says as much, in less time."""


def write_random(folder: Path, shape: str, seed: int = 0) -> Path:
    """Knows all languages and tasks. Its logits are far enough apart for two ways of adding them up."""
    layers, heads, width = SHAPES[shape]
    shutil.copytree(BUNDLED, folder, ignore=shutil.ignore_patterns("*.safetensors", "ananse.json"))
    bundled = json.loads((BUNDLED / "config.json").read_text())
    config = WhisperConfig(
        **bundled
        | {
            "d_model": width,
            "decoder_layers": layers,
            "decoder_attention_heads": heads,
            "decoder_ffn_dim": 4 * width,
            "encoder_layers": ENCODER_LAYERS,
            "encoder_attention_heads": heads,
            "encoder_ffn_dim": 4 * width,
            "init_std": 0.1,
            "dtype": "float32",
        }
    )
    torch.manual_seed(seed)
    model = WhisperForConditionalGeneration(config)
    settings = (folder / "generation_config.json").read_text()
    model.save_pretrained(folder)
    (folder / "generation_config.json").write_text(settings)
    return folder


def load_random(folder: Path) -> Loaded:
    source = ModelSource("random", str(folder))
    return load(source, device="cpu", dtype="float32", threads=1, hf_endpoint=None)
