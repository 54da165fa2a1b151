"""An untrained Whisper checkpoint: word pieces, configs and processor, laid out as Hugging Face does."""

import json
from pathlib import Path

from tokenizers import ByteLevelBPETokenizer
from transformers import (
    AddedToken,
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperProcessor,
    WhisperTokenizer,
)
from transformers.models.whisper.tokenization_whisper import LANGUAGES

PIECES = 1000
SHAPE = {
    "d_model": 256,
    "encoder_layers": 6,
    "decoder_layers": 4,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 1024,
    "decoder_ffn_dim": 1024,
}
_LANGUAGES = list(LANGUAGES)[:99]
_AFTER_LANGUAGES = ("translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps")
_NEVER_CHOSEN = ("startoftranscript", "translate", "transcribe", "startoflm", "startofprev", "nospeech")
_UNSPOKEN = set('"#()*+/<=>@[]^_`{|}~')


def write_untrained(sentences: list[str], folder: Path) -> None:
    """All files of a checkpoint but the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary, merges = _word_pieces(sentences)
    tokenizer = _tokenizer(vocabulary, merges)
    extractor = WhisperFeatureExtractor(feature_size=80)
    WhisperProcessor(extractor, tokenizer).save_pretrained(folder)
    # Tools outside this library read these three.
    extractor.save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *(" ".join(pair) for pair in merges), ""]))
    _config(tokenizer, len(vocabulary)).save_pretrained(folder)
    _generation(tokenizer, vocabulary).save_pretrained(folder)


def _word_pieces(sentences: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    pieces = ByteLevelBPETokenizer()
    pieces.train_from_iterator(
        (" " + line for line in sentences), PIECES, min_frequency=3, show_progress=False
    )
    model = json.loads(pieces.to_str())["model"]
    return model["vocab"], [
        tuple(pair.split() if isinstance(pair, str) else pair) for pair in model["merges"]
    ]


def _tokenizer(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> WhisperTokenizer:
    tokenizer = WhisperTokenizer(
        vocab=vocabulary,
        merges=merges,
        pad_token="<|endoftext|>",
        model_max_length=448,
        clean_up_tokenization_spaces=False,
    )
    special = [f"<|{name}|>" for name in ("startoftranscript", *_LANGUAGES, *_AFTER_LANGUAGES)]
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    # The first time is found as the last special token plus one, so times are not special.
    times = [AddedToken(f"<|{step * 0.02:.2f}|>", special=False, normalized=False) for step in range(1501)]
    tokenizer.add_tokens(times)
    return tokenizer


def _config(tokenizer: WhisperTokenizer, end: int) -> WhisperConfig:
    return WhisperConfig(
        **SHAPE,
        vocab_size=len(tokenizer),
        num_mel_bins=80,
        max_source_positions=1500,
        max_target_positions=448,
        dropout=0.0,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        decoder_start_token_id=end + 1,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )


def _generation(tokenizer: WhisperTokenizer, vocabulary: dict[str, int]) -> GenerationConfig:
    token = tokenizer.convert_tokens_to_ids
    end = len(vocabulary)
    unspoken = [number for piece, number in vocabulary.items() if piece.replace("Ġ", "") in _UNSPOKEN]
    return GenerationConfig(
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        decoder_start_token_id=end + 1,
        max_length=448,
        max_initial_timestamp_index=50,
        is_multilingual=True,
        lang_to_id={f"<|{code}|>": token(f"<|{code}|>") for code in _LANGUAGES},
        task_to_id={name: token(f"<|{name}|>") for name in ("transcribe", "translate")},
        no_timestamps_token_id=token("<|notimestamps|>"),
        prev_sot_token_id=token("<|startofprev|>"),
        suppress_tokens=sorted(unspoken) + [token(f"<|{name}|>") for name in _NEVER_CHOSEN],
        begin_suppress_tokens=[vocabulary["Ġ"], end],
        return_timestamps=False,
        alignment_heads=[
            [SHAPE["decoder_layers"] - 1, head] for head in range(SHAPE["decoder_attention_heads"])
        ],
    )
