"""From a model's name to a model ready to run: files, device, number format, weights, probe."""

from dataclasses import dataclass, replace
from typing import Any

import torch
import transformers
from transformers import (
    GenerationConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)

from shared.devices import usable_cores
from shared.models import ModelSource, Shortcuts
from worker.engine import calibration, probe
from worker.engine.decoders import choose_format
from worker.engine.doctor import Examination, Tokens, UnusableModel, examine
from worker.engine.encoder import Encoder
from worker.engine.listening import encode
from worker.engine.prompts import build_prompt
from worker.engine.sources import Checkpoint, resolve
from worker.engine.values import Abilities, ModelCard, ModelUnavailable


@dataclass(frozen=True, slots=True)
class Loaded:
    """Transformers' objects and what the doctor and the probe know of them."""

    model: Any
    tokenizer: Any
    mel: Any
    tokens: Tokens
    heads: tuple[tuple[int, int], ...]
    card: ModelCard
    whole: Encoder | None = None
    """On a processor."""
    short: Encoder | None = None
    """Wanted by whoever made or named the model; whether it is used is found out with the weights running."""
    kept: torch.dtype | None = None
    """The format in which a compiled decoder keeps its numbers; without one, torch's operations write."""


def load(source: ModelSource, *, device: str, dtype: str, threads: int, hf_endpoint: str | None) -> Loaded:
    """Finds, examines, loads and probes a model. Raises ModelUnavailable."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    checkpoint = resolve(source, hf_endpoint)
    cores = usable_cores()
    torch.set_num_threads(min(threads or cores, cores))
    place = choose_device(device)
    model, tokenizer, examination = _read(checkpoint, source, choose_dtype(dtype, place))
    model.to(place)
    mel = WhisperFeatureExtractor(**_mel_settings(examination.features))
    tokens, abilities = _probe(model, mel, examination)
    card = _card(source, checkpoint, model, abilities)
    shortcuts = choose_shortcuts(source.shortcuts, examination.bears if dtype == "auto" else None, model)
    whole = Encoder(model, Shortcuts()) if place.type == "cpu" else None
    short = Encoder(model, shortcuts, beside=whole) if shortcuts else None
    kept = choose_format(model, is_exact=dtype != "auto")
    return Loaded(model, tokenizer, mel, tokens, examination.alignment_heads, card, whole, short, kept)


def choose_device(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ModelUnavailable(
            "No CUDA device was found: set the device to cpu or auto, or install the driver."
        )
    return torch.device(device)


def choose_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies it, and does so faster; elsewhere it is emulated, and slower."""
    if dtype != "auto":
        named: torch.dtype = getattr(torch, dtype)
        return named
    if device.type == "cuda":
        has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if has_bfloat16 else torch.float16
    has_bfloat16 = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return calibration.faster(torch.float32, torch.bfloat16) if has_bfloat16 else torch.float32


def choose_shortcuts(asked: Shortcuts | None, borne: Shortcuts | None, model: Any) -> Shortcuts:
    """What was asked for, or what the model bears; int8 only where it is faster."""
    wanted = borne if asked is None else asked
    if wanted is None or model.device.type != "cpu":
        return Shortcuts()
    is_one_length = wanted.margin_s is None
    if wanted.int8 and not (
        model.dtype == torch.float32 and calibration.is_int8_faster(is_one_length=is_one_length)
    ):
        return replace(wanted, int8=False)
    return wanted


def _read(checkpoint: Checkpoint, source: ModelSource, dtype: torch.dtype) -> tuple[Any, Any, Examination]:
    try:
        tokenizer = WhisperTokenizer.from_pretrained(checkpoint.folder, local_files_only=True)
        examination = examine(checkpoint.folder, tokenizer, source.window_s)
        model = WhisperForConditionalGeneration.from_pretrained(
            checkpoint.folder,
            dtype=dtype,
            attn_implementation="sdpa",
            use_safetensors=True,
            local_files_only=True,
        )
    except UnusableModel as error:
        raise ModelUnavailable(f"Model {source.source} cannot be used: {error}.") from error
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ModelUnavailable(
            f"Model {source.source} cannot be loaded, its files do not fit together "
            f"({type(error).__name__}): fetch or save the checkpoint again."
        ) from error
    tokens = examination.tokens
    # `generate` merges this into every call; the checkpoint's own may be stale, and the doctor has read it.
    model.generation_config = GenerationConfig(
        eos_token_id=tokens.eos, pad_token_id=tokens.eos, decoder_start_token_id=tokens.sot
    )
    return model.eval(), tokenizer, examination


def _mel_settings(features: dict[str, Any]) -> dict[str, Any]:
    """Only what shapes the mel; the rest of such files is bookkeeping of other versions."""
    shaping = ("feature_size", "sampling_rate", "hop_length", "chunk_length", "n_fft", "dither")
    return {name: features[name] for name in shaping if name in features}


def _probe(model: Any, mel: Any, examination: Examination) -> tuple[Tokens, Abilities]:
    """What the files promise, less what the weights do not keep."""
    tokens, abilities = examination.tokens, examination.abilities
    with torch.inference_mode():
        states = encode(model, mel, [probe.speechlike(), probe.speechlike(pitch_hz=210.0)])
        if tokens.languages and not probe.wants_language(model, states, tokens):
            tokens = replace(tokens, languages={}, tasks={})
            abilities = replace(abilities, tasks=("transcribe",), language_detection=False)
            abilities = _repaired(abilities, "trained without language and task tokens; the prompt has none")
        if abilities.segment_timestamps:
            prompt = build_prompt(tokens, next(iter(tokens.languages), None), "transcribe", timestamps=True)
            if probe.timestamp_mass(model, states, prompt, tokens) < probe.MIN_TIMESTAMP_MASS:
                abilities = replace(abilities, segment_timestamps=False)
                abilities = _repaired(
                    abilities, "trained without timestamps; segments get their window's times"
                )
    return tokens, abilities


def _repaired(abilities: Abilities, repair: str) -> Abilities:
    return replace(abilities, repairs=(*abilities.repairs, repair))


def _card(source: ModelSource, checkpoint: Checkpoint, model: Any, abilities: Abilities) -> ModelCard:
    return ModelCard(
        name=source.name,
        source=source.source,
        revision=checkpoint.revision,
        device=str(model.device),
        dtype=str(model.dtype).removeprefix("torch."),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        abilities=abilities,
        details={
            "threads": str(torch.get_num_threads()),
            "torch": str(torch.__version__),
            "transformers": str(transformers.__version__),
        },
    )
