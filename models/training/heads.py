"""Which cross-attention heads follow the speech: measured against the true time of every token."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import WhisperForConditionalGeneration, WhisperProcessor, WhisperTokenizer

from models.training.corpus import Corpus
from models.training.windows import Mel, Stage, Windows

BATCHES = 8
MOST_HEADS = 6
WORST_S = 0.15
"""A head further from the truth than this, in the median, is of no use for word times."""


def choose_heads(checkpoint: Path, speech: Path) -> list[list[int]]:
    """Writes the best heads as (layer, head) into the generation config, and returns them."""
    whisper = WhisperForConditionalGeneration.from_pretrained(
        checkpoint, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    distances = _distances(whisper, WhisperProcessor.from_pretrained(checkpoint).tokenizer, speech)
    ranked = sorted((distance, place) for place, distance in distances.items())
    for distance, (layer, head) in ranked:
        print(f"layer {layer} head {head}: {distance:.3f} s from the token's time, in the median")
    good = [list(place) for distance, place in ranked if distance <= WORST_S][:MOST_HEADS]
    heads = sorted(good or [list(ranked[0][1])])
    path = checkpoint / "generation_config.json"
    config = json.loads(path.read_text()) | {"alignment_heads": heads}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    return heads


def _distances(whisper: Any, tokenizer: WhisperTokenizer, speech: Path) -> dict[tuple[int, int], float]:
    stage = Stage(hours=0, window_s=30, batch=4, timestamps=1.0, disturbed=0.0)
    windows, mel = Windows(Corpus([speech]), tokenizer, stage, seed=77), Mel("cpu")
    gaps: dict[tuple[int, int], list[torch.Tensor]] = {}
    for step in range(BATCHES):
        batch = windows[step]
        with torch.inference_mode():
            attentions = whisper(
                mel(batch["sound"]), decoder_input_ids=batch["inputs"], output_attentions=True
            ).cross_attentions
        known = batch["when"] >= 0
        for layer, weights in enumerate(attentions):
            for head in range(weights.shape[1]):
                found = weights[:, head].argmax(-1)[known].float()
                gaps.setdefault((layer, head), []).append((found - batch["when"][known]).abs() / 50)
    return {place: float(torch.cat(parts).median()) for place, parts in gaps.items()}
