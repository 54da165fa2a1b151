"""The bundled weights in the formats of faster-whisper and whisper.cpp, so that peers run on exactly them.

    python -m benchmarks.convert --out var/peers

Run by `benchmarks.peers` in an environment that has CTranslate2.
"""

import argparse
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperTokenizer

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / "models" / "synthetic-en"

GGML_MAGIC = 0x67676D6C
GGML_VOCABULARY = 51_865
GGML_END = 50_257
"""whisper.cpp knows the ids of Whisper's multilingual vocabulary by heart, from the end of text on."""
NEVER = -30.0
"""The logit of ids that the model does not have."""

_NAMES = (
    ("self_attn_layer_norm", "attn_ln"),
    ("encoder_attn_layer_norm", "cross_attn_ln"),
    ("final_layer_norm", "mlp_ln"),
    ("encoder.layer_norm", "encoder.ln_post"),
    ("decoder.layer_norm", "decoder.ln"),
    ("self_attn.", "attn."),
    ("encoder_attn.", "cross_attn."),
    ("q_proj", "query"),
    ("k_proj", "key"),
    ("v_proj", "value"),
    ("out_proj", "out"),
    ("fc1", "mlp.0"),
    ("fc2", "mlp.2"),
    ("embed_positions.weight", "positional_embedding"),
    ("embed_tokens", "token_embedding"),
    (".layers.", ".blocks."),
)
_WHOLE_PRECISION = ("conv1.bias", "conv2.bias", "positional_embedding")


def to_faster_whisper(model: Path, out: Path, quantization: str) -> None:
    """A folder for `faster_whisper.WhisperModel`."""
    # Not in the project's own environment.
    from ctranslate2.converters import TransformersConverter  # noqa: PLC0415

    copied = ["tokenizer.json", "preprocessor_config.json"]
    TransformersConverter(str(model), copy_files=copied).convert(
        str(out), quantization=quantization, force=True
    )


def to_whisper_cpp(model: Path, out: Path) -> None:
    """A ggml file in fp16. Ids that whisper.cpp has and the model has not are never chosen."""
    whisper = WhisperForConditionalGeneration.from_pretrained(model, dtype=torch.float32).eval()
    tokenizer = WhisperTokenizer.from_pretrained(model)
    extractor = WhisperFeatureExtractor.from_pretrained(model)
    config = whisper.config
    header = [
        GGML_VOCABULARY,
        config.max_source_positions,
        config.d_model,
        config.encoder_attention_heads,
        config.encoder_layers,
        config.max_target_positions,
        config.d_model,
        config.decoder_attention_heads,
        config.decoder_layers,
        config.num_mel_bins,
        1,
    ]
    filters = np.ascontiguousarray(extractor.mel_filters.T, np.float32)
    with out.open("wb") as file:
        file.write(struct.pack("<12i", GGML_MAGIC, *header))
        file.write(struct.pack("<2i", *filters.shape) + filters.tobytes())
        _write_tokens(file, tokenizer)
        for name, weight in whisper.model.state_dict().items():
            rows = (
                _spread(weight, whisper.model.decoder.layer_norm)
                if name == "decoder.embed_tokens.weight"
                else weight
            )
            _write_tensor(file, _renamed(name), rows.numpy())


def _renamed(name: str) -> str:
    for theirs, ours in _NAMES:
        name = name.replace(theirs, ours)
    return name


def _write_tokens(file: BinaryIO, tokenizer: WhisperTokenizer) -> None:
    """Text pieces as bytes; the rest whisper.cpp names by itself."""
    file.write(struct.pack("<i", GGML_END))
    for number in range(GGML_END):
        is_text = number < tokenizer.eos_token_id
        piece = tokenizer.convert_ids_to_tokens(number) if is_text else f"[unused {number}]"
        written = bytes(_BYTES[letter] for letter in piece) if is_text else piece.encode()
        file.write(struct.pack("<i", len(written)) + written)


def _bytes_of_letters() -> dict[str, int]:
    """The byte-level alphabet of GPT-2, inverted: printable bytes stand for themselves, the rest follow."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(rest)}


_BYTES = _bytes_of_letters()


def _spread(embedding: torch.Tensor, norm: torch.nn.LayerNorm) -> torch.Tensor:
    """The rows at the ids of whisper.cpp, and between them rows that always give the logit `NEVER`.

    A state leaves the last norm as h = gain * x + bias, and the x of a layer norm sum to nothing. So the sum
    of h / gain is that of bias / gain, whatever was heard: a row along 1 / gain has one logit for all states.
    """
    end = embedding.shape[0] - (GGML_VOCABULARY - GGML_END)
    direction = 1 / norm.weight
    row = NEVER / (direction @ norm.bias) * direction
    rows = row.detach().expand(GGML_VOCABULARY, -1).clone()
    rows[:end] = embedding[:end]
    rows[GGML_END:] = embedding[end:]
    return rows


def _write_tensor(file: BinaryIO, name: str, weight: NDArray[np.float32]) -> None:
    if name.endswith(("conv1.bias", "conv2.bias")):
        weight = weight.reshape(-1, 1)
    is_half = weight.ndim > 1 and not name.endswith(_WHOLE_PRECISION)
    encoded = name.encode()
    file.write(struct.pack("<3i", weight.ndim, len(encoded), int(is_half)))
    file.write(struct.pack(f"<{weight.ndim}i", *reversed(weight.shape)) + encoded)
    file.write(np.ascontiguousarray(weight, np.float16 if is_half else np.float32).tobytes())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    to_faster_whisper(asked.model, asked.out / "faster-whisper-int8", "int8")
    to_whisper_cpp(asked.model, asked.out / "ggml-f16.bin")


if __name__ == "__main__":
    main()
