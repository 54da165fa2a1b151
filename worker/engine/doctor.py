"""Examines a checkpoint's files: which tokens steer it, what it can do, what had to be mended.

The tokenizer is the truth; generation configs of fine-tunes are often years older than their weights. Files
only: what shows in the weights alone is found by `probe.py`.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared.models import Shortcuts, parse_shortcuts
from worker.engine.values import WINDOW_SECONDS, Abilities

TIMESTAMPS = 1501
"""0.00 s to 30.00 s in steps of 0.02 s."""
ENGLISH_ONLY_VOCABULARY = 51_864
MULTILINGUAL_VOCABULARIES = (51_865, 51_866)
MAX_INITIAL_TIMESTAMP = 50
"""The first timestamp is at most one second in, unless the checkpoint says otherwise."""

_LANGUAGE_TOKEN = re.compile(r"<\|([a-z]{2,3})\|>")
_TASKS = ("transcribe", "translate")


class UnusableModel(Exception):
    """The files do not make a model that can be decoded; the message is one sentence."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Ids of the tokens that steer decoding. `languages` and `tasks` are empty where the prompt has none;
    `fixed_language` is the one a fine-tune's own configuration pins."""

    sot: int
    eos: int
    prev: int | None
    no_timestamps: int | None
    timestamps: range
    languages: Mapping[str, int]
    tasks: Mapping[str, int]
    suppressed: tuple[int, ...]
    begin_suppressed: tuple[int, ...]
    max_initial_timestamp: int
    vocabulary: int
    fixed_language: str | None = None

    @property
    def no_speech(self) -> int | None:
        """By construction of the vocabulary; the token's name differs between releases."""
        return None if self.no_timestamps is None else self.no_timestamps - 1

    def is_text(self, token: int) -> bool:
        return token < self.eos or token >= self.timestamps.stop


@dataclass(frozen=True, slots=True)
class Examination:
    """All that a runner must know beside the weights. `features` configures the mel front end, `bears` is
    what may be left out of the encoder's work."""

    tokens: Tokens
    abilities: Abilities
    alignment_heads: tuple[tuple[int, int], ...]
    features: dict[str, Any] = field(default_factory=dict)
    bears: Shortcuts = field(default_factory=Shortcuts)


def examine(folder: Path, tokenizer: Any, window_s: float | None) -> Examination:
    """`tokenizer` is the checkpoint's own, from Transformers. Raises UnusableModel."""
    config = _read(folder / "config.json")
    generation = _read(folder / "generation_config.json")
    manifest = _read(folder / "ananse.json")
    repairs = [] if generation else ["generation_config.json is missing; built from the tokenizer"]
    tokens = _find_tokens(config, generation, tokenizer, repairs)
    heads = _alignment_heads(config, generation, repairs)
    features = _features(folder, config, repairs)
    languages = _languages(tokens, manifest, config, generation)
    abilities = Abilities(
        languages=languages,
        tasks=_TASKS if len(languages) > 1 and "translate" in tokens.tasks else ("transcribe",),
        segment_timestamps=len(tokens.timestamps) > 0,
        word_timestamps=bool(heads),
        language_detection=len(set(languages) & set(tokens.languages)) > 1 and tokens.fixed_language is None,
        prompt=tokens.prev is not None,
        window_s=_window_s(manifest, window_s),
        repairs=tuple(repairs),
    )
    return Examination(tokens, abilities, heads, features, _bears(manifest))


def _find_tokens(
    config: dict[str, Any], generation: dict[str, Any], tokenizer: Any, repairs: list[str]
) -> Tokens:
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    size = int(config.get("vocab_size", len(vocabulary)))
    sot, eos = vocabulary.get("<|startoftranscript|>"), vocabulary.get("<|endoftext|>")
    if sot is None or eos is None or max(sot, eos) >= size:
        raise UnusableModel(
            "its tokenizer lacks <|startoftranscript|> or <|endoftext|>, so it is not Whisper's: "
            "add the tokenizer files the model was trained with"
        )
    no_timestamps = _no_timestamps(vocabulary, generation, repairs)
    is_english_only = _is_english_only(size, generation, repairs)
    languages = {} if is_english_only else _language_tokens(vocabulary, generation, repairs)
    return Tokens(
        sot=sot,
        eos=eos,
        prev=vocabulary.get("<|startofprev|>"),
        no_timestamps=no_timestamps,
        timestamps=_timestamps(no_timestamps, size, repairs),
        languages=languages,
        tasks={} if is_english_only else _task_tokens(vocabulary, generation, repairs),
        suppressed=_suppressed("suppress_tokens", config, generation, size, repairs),
        begin_suppressed=_suppressed("begin_suppress_tokens", config, generation, size, repairs),
        max_initial_timestamp=int(generation.get("max_initial_timestamp_index") or MAX_INITIAL_TIMESTAMP),
        vocabulary=size,
        fixed_language=_fixed_language(generation, languages, repairs),
    )


def _no_timestamps(
    vocabulary: Mapping[str, int], generation: dict[str, Any], repairs: list[str]
) -> int | None:
    token = vocabulary.get("<|notimestamps|>")
    _compare("no_timestamps_token_id", generation, token, repairs)
    return token


def _timestamps(no_timestamps: int | None, vocabulary_size: int, repairs: list[str]) -> range:
    """Older tokenizers do not list the timestamps; the vocabulary's size shows whether they are there."""
    if no_timestamps is None or vocabulary_size < no_timestamps + 1 + TIMESTAMPS:
        repairs.append("the vocabulary has no timestamps; segments get their window's times")
        return range(vocabulary_size, vocabulary_size)
    return range(no_timestamps + 1, no_timestamps + 1 + TIMESTAMPS)


def _is_english_only(vocabulary_size: int, generation: dict[str, Any], repairs: list[str]) -> bool:
    declared = generation.get("is_multilingual")
    if vocabulary_size == ENGLISH_ONLY_VOCABULARY:
        found = True
    elif vocabulary_size in MULTILINGUAL_VOCABULARIES:
        found = False
    else:
        return declared is False
    if generation and declared is not (not found):
        repairs.append(f"is_multilingual was {declared}; the vocabulary says {not found}")
    return found


def _language_tokens(
    vocabulary: Mapping[str, int], generation: dict[str, Any], repairs: list[str]
) -> dict[str, int]:
    """Fine-tunes may add a language Whisper does not have; its token then stands in the tokenizer."""
    found = {
        match[1]: token for text, token in vocabulary.items() if (match := _LANGUAGE_TOKEN.fullmatch(text))
    }
    _compare(
        "lang_to_id", generation, {f"<|{code}|>": token for code, token in found.items()} or None, repairs
    )
    return dict(sorted(found.items(), key=lambda entry: entry[1]))


def _task_tokens(
    vocabulary: Mapping[str, int], generation: dict[str, Any], repairs: list[str]
) -> dict[str, int]:
    found = {task: vocabulary[f"<|{task}|>"] for task in _TASKS if f"<|{task}|>" in vocabulary}
    _compare("task_to_id", generation, found or None, repairs)
    return found


def _compare(key: str, generation: dict[str, Any], found: object, repairs: list[str]) -> None:
    """Notes where a generation config that is there is stale; the tokenizer's value is used in any case."""
    if not generation or found is None or generation.get(key) == found:
        return
    state = "missing from" if key not in generation else "wrong in"
    repairs.append(f"{key} was {state} generation_config.json; taken from the tokenizer")


def _suppressed(
    key: str, config: dict[str, Any], generation: dict[str, Any], size: int, repairs: list[str]
) -> tuple[int, ...]:
    """Old checkpoints keep the list in config.json. An empty list is a decision and is kept."""
    tokens = generation.get(key)
    if tokens is None and config.get(key):
        tokens = config[key]
        repairs.append(f"{key} was only in config.json; used from there")
    return tuple(token for token in tokens or () if 0 <= token < size)


def _fixed_language(
    generation: dict[str, Any], languages: Mapping[str, int], repairs: list[str]
) -> str | None:
    """The language a generation config pins, by name, token or the old `forced_decoder_ids`."""
    pinned = generation.get("language")
    forced = generation.get("forced_decoder_ids") or []
    if forced:
        repairs.append("forced_decoder_ids is out of use; read as the default language")
    if pinned is None:
        ids = {token: code for code, token in languages.items()}
        return next((ids[token] for _, token in forced if token in ids), None)
    code = str(pinned).strip("<|>").lower()
    code = code if code in languages else _language_codes().get(code, "")
    return code if code in languages else None


def _language_codes() -> dict[str, str]:
    # Loads Transformers' Whisper tables only for the rare config that names its language in full.
    from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE  # noqa: PLC0415

    codes: dict[str, str] = TO_LANGUAGE_CODE
    return codes


def _languages(
    tokens: Tokens, manifest: dict[str, Any], config: dict[str, Any], generation: dict[str, Any]
) -> tuple[str, ...]:
    declared = manifest.get("languages")
    if isinstance(declared, list) and declared:
        return tuple(str(code) for code in declared)
    if tokens.languages:
        return tuple(tokens.languages)
    is_english_only = (
        generation.get("is_multilingual") is False or config.get("vocab_size") == ENGLISH_ONLY_VOCABULARY
    )
    return ("en",) if is_english_only else ()


def _alignment_heads(
    config: dict[str, Any], generation: dict[str, Any], repairs: list[str]
) -> tuple[tuple[int, int], ...]:
    """The heads that the checkpoint names, or the decoder's upper half, as in the original release."""
    layers, heads = int(config["decoder_layers"]), int(config["decoder_attention_heads"])
    named = [
        (layer, head)
        for layer, head in generation.get("alignment_heads") or ()
        if layer < layers and head < heads
    ]
    if named:
        return tuple(named)
    repairs.append("alignment_heads are missing; the upper half of the decoder aligns words")
    return tuple((layer, head) for layer in range(layers // 2, layers) for head in range(heads))


def _features(folder: Path, config: dict[str, Any], repairs: list[str]) -> dict[str, Any]:
    """The mel front end, from whichever file has it, with as many bins as the encoder takes."""
    features = _read(folder / "preprocessor_config.json")
    if not features:
        features = _read(folder / "processor_config.json").get("feature_extractor") or {}
        where = "taken from processor_config.json" if features else "Whisper's own values are used"
        repairs.append(f"preprocessor_config.json is missing; {where}")
    bins = int(config["num_mel_bins"])
    if features.get("feature_size", 80) != bins:
        if features:
            repairs.append(
                f"feature_size was {features.get('feature_size')}; the encoder takes {bins} mel bins"
            )
        features = features | {"feature_size": bins}
    return features


def _window_s(manifest: dict[str, Any], window_s: float | None) -> float:
    return min(float(window_s or manifest.get("window_s") or WINDOW_SECONDS), float(WINDOW_SECONDS))


def _bears(manifest: dict[str, Any]) -> Shortcuts:
    """Where whoever made the weights has measured it."""
    try:
        return parse_shortcuts(str(manifest.get("bears", "none")))
    except ValueError as error:
        raise UnusableModel(f"its ananse.json is wrong: {error}") from error


def _read(path: Path) -> dict[str, Any]:
    """Empty when the file is missing. Raises UnusableModel when it is not a JSON object."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UnusableModel(f"its {path.name} is not valid JSON: fetch the checkpoint again") from error
    if not isinstance(content, dict):
        raise UnusableModel(f"its {path.name} is not a JSON object: fetch the checkpoint again")
    return content
