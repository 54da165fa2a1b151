"""Whisper's shapes with random weights and the size of its vocabulary; words are the bundled model's, and
fillers."""

import json
import shutil
from pathlib import Path

import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration, WhisperTokenizer

ROOT = Path(__file__).parents[1]
BUNDLED = ROOT / "models" / "synthetic-en"
PIECES = 50_257

SHAPES = {
    "tiny": (4, 4, 6, 384),
    "base": (6, 6, 8, 512),
    "small": (12, 12, 12, 768),
    "large-v3": (32, 32, 20, 1280),
    "large-v3-turbo": (32, 4, 20, 1280),
}
"""Encoder layers, decoder layers, heads, width."""


def write_shape(folder: Path, shape: str) -> Path:
    """The same for the same shape; left alone when it is there."""
    if (folder / "model.safetensors").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer()
    tokenizer.save_pretrained(folder)
    shutil.copy(BUNDLED / "preprocessor_config.json", folder)
    encoder, decoder, heads, width = SHAPES[shape]
    known = tokenizer.get_vocab()
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration(
        WhisperConfig(
            vocab_size=len(tokenizer),
            encoder_layers=encoder,
            decoder_layers=decoder,
            encoder_attention_heads=heads,
            decoder_attention_heads=heads,
            encoder_ffn_dim=4 * width,
            decoder_ffn_dim=4 * width,
            d_model=width,
            bos_token_id=known["<|endoftext|>"],
            eos_token_id=known["<|endoftext|>"],
            pad_token_id=known["<|endoftext|>"],
            decoder_start_token_id=known["<|startoftranscript|>"],
        )
    )
    model.save_pretrained(folder)
    (folder / "generation_config.json").write_text(json.dumps(_generation(known)))
    return folder


def _tokenizer() -> WhisperTokenizer:
    words: dict[str, int] = json.loads((BUNDLED / "vocab.json").read_text())
    merges = [tuple(line.split()) for line in (BUNDLED / "merges.txt").read_text().splitlines()[1:]]
    known: dict[str, int] = WhisperTokenizer.from_pretrained(BUNDLED).get_vocab()
    steering = sorted((word for word in known if known[word] >= len(words)), key=lambda word: known[word])
    words = {word: number for word, number in words.items() if word not in steering}
    fillers = {f"filler{number}": number for number in range(len(words), PIECES)}
    tokenizer = WhisperTokenizer(vocab=words | fillers, merges=merges)
    tokenizer.add_tokens(steering, special_tokens=True)
    return tokenizer


def _generation(known: dict[str, int]) -> dict[str, object]:
    """The bundled model's settings, by the new ids."""
    settings: dict[str, object] = json.loads((BUNDLED / "generation_config.json").read_text())
    languages = settings["lang_to_id"]
    assert isinstance(languages, dict)
    end = known["<|endoftext|>"]
    return settings | {
        "lang_to_id": {token: known[token] for token in languages},
        "task_to_id": {task: known[f"<|{task}|>"] for task in ("transcribe", "translate")},
        "no_timestamps_token_id": known["<|notimestamps|>"],
        "decoder_start_token_id": known["<|startoftranscript|>"],
        "prev_sot_token_id": known["<|startofprev|>"],
        "begin_suppress_tokens": [220, end],
        "bos_token_id": end,
        "eos_token_id": end,
        "pad_token_id": end,
        "alignment_heads": [[1, 0]],
        # No random word is to end the text: all sides write as much as they may.
        "suppress_tokens": [end],
    }
