import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import WhisperTokenizer

from shared.models import Shortcuts
from worker.engine.doctor import Examination, UnusableModel, examine

BUNDLED = Path(__file__).parents[3] / "models" / "synthetic-en"


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return WhisperTokenizer.from_pretrained(BUNDLED)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The bundled model's JSON, for a test to age or break."""
    shutil.copytree(BUNDLED, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    return tmp_path / "model"


def change(path: Path, **changes: object) -> None:
    """Sets keys of a JSON file; None removes one."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


class Words:
    """A tokenizer with the tokens that a test names."""

    def __init__(self, vocabulary: dict[str, int]) -> None:
        self._vocabulary = vocabulary

    def get_vocab(self) -> dict[str, int]:
        return self._vocabulary


def repairs(examination: Examination) -> str:
    return " | ".join(examination.abilities.repairs)


def test_healthy_model_needs_no_repair(tokenizer: Any) -> None:
    examination = examine(BUNDLED, tokenizer, None)

    declared = json.loads((BUNDLED / "generation_config.json").read_text())
    manifest = json.loads((BUNDLED / "ananse.json").read_text())
    tokens = examination.tokens
    assert examination.abilities.repairs == ()
    assert tokens.no_timestamps == declared["no_timestamps_token_id"]
    assert tokens.no_speech == declared["no_timestamps_token_id"] - 1
    assert tokens.timestamps == range(declared["no_timestamps_token_id"] + 1, tokens.vocabulary)
    assert tokens.languages["en"] == declared["lang_to_id"]["<|en|>"]
    assert tokens.tasks == declared["task_to_id"]
    assert list(tokens.suppressed) == declared["suppress_tokens"]
    assert examination.abilities.languages == ("en",) == tuple(manifest["languages"])
    assert examination.abilities.window_s == manifest.get("window_s", 30)
    assert examination.abilities.tasks == ("transcribe",)
    assert not examination.abilities.language_detection


def test_stale_generation_config_is_mended_from_the_tokenizer(folder: Path, tokenizer: Any) -> None:
    change(
        folder / "generation_config.json",
        no_timestamps_token_id=None,
        lang_to_id=None,
        task_to_id=None,
        alignment_heads=None,
        is_multilingual=None,
        suppress_tokens=None,
        max_length=225,
    )
    change(folder / "config.json", suppress_tokens=[1, 2, 99_999])

    mended = examine(folder, tokenizer, None)
    healthy = examine(BUNDLED, tokenizer, None)

    assert mended.tokens.languages == healthy.tokens.languages
    assert mended.tokens.tasks == healthy.tokens.tasks
    assert mended.tokens.timestamps == healthy.tokens.timestamps
    assert mended.tokens.suppressed == (1, 2)
    assert mended.abilities.segment_timestamps
    for key in ("no_timestamps_token_id", "lang_to_id", "task_to_id", "alignment_heads", "suppress_tokens"):
        assert key in repairs(mended)


def test_wrong_token_ids_are_corrected(folder: Path, tokenizer: Any) -> None:
    change(folder / "generation_config.json", no_timestamps_token_id=50_363, lang_to_id={"<|en|>": 50_259})

    mended = examine(folder, tokenizer, None)

    assert mended.tokens.no_timestamps == tokenizer.convert_tokens_to_ids("<|notimestamps|>")
    assert "no_timestamps_token_id was wrong" in repairs(mended)
    assert "lang_to_id was wrong" in repairs(mended)


def test_missing_generation_config(folder: Path, tokenizer: Any) -> None:
    (folder / "generation_config.json").unlink()

    mended = examine(folder, tokenizer, None)

    assert mended.tokens.timestamps == examine(BUNDLED, tokenizer, None).tokens.timestamps
    assert "generation_config.json is missing" in repairs(mended)


def test_missing_alignment_heads_become_the_upper_layers(folder: Path, tokenizer: Any) -> None:
    change(folder / "generation_config.json", alignment_heads=[[99, 0]])

    mended = examine(folder, tokenizer, None)

    config = json.loads((folder / "config.json").read_text())
    layers, heads = range(config["decoder_layers"]), range(config["decoder_attention_heads"])
    upper = layers[len(layers) // 2 :]
    assert mended.alignment_heads == tuple((layer, head) for layer in upper for head in heads)
    assert mended.abilities.word_timestamps


@pytest.mark.parametrize("pin", ["sw", "<|sw|>", "swahili"])
def test_language_pinned_by_a_fine_tune_is_its_default(folder: Path, tokenizer: Any, pin: str) -> None:
    (folder / "ananse.json").unlink()
    change(folder / "generation_config.json", language=pin)

    examination = examine(folder, tokenizer, None)

    assert examination.tokens.fixed_language == "sw"
    assert not examination.abilities.language_detection


@pytest.mark.parametrize("language", ["sw", None])
def test_old_forced_ids_pin_a_language_or_ask_for_detection(
    folder: Path, tokenizer: Any, language: str | None
) -> None:
    (folder / "ananse.json").unlink()
    first = tokenizer.convert_tokens_to_ids(f"<|{language}|>") if language else None
    task = tokenizer.convert_tokens_to_ids("<|transcribe|>")
    change(folder / "generation_config.json", forced_decoder_ids=[[1, first], [2, task]])

    examination = examine(folder, tokenizer, None)

    assert examination.tokens.fixed_language == language
    assert examination.abilities.language_detection is (language is None)
    assert examination.abilities.tasks == ("transcribe", "translate")
    assert len(examination.abilities.languages) == len(examination.tokens.languages) > 90
    assert "forced_decoder_ids" in repairs(examination)


def english_only_vocabulary() -> dict[str, int]:
    return {
        "<|endoftext|>": 50_256,
        "<|startoftranscript|>": 50_257,
        "<|en|>": 50_258,
        "<|zh|>": 50_259,
        "<|translate|>": 50_357,
        "<|transcribe|>": 50_358,
        "<|startofprev|>": 50_360,
        "<|nocaptions|>": 50_361,
        "<|notimestamps|>": 50_362,
    }


def test_english_only_model_has_no_language_in_its_prompt(folder: Path) -> None:
    (folder / "ananse.json").unlink()
    change(folder / "config.json", vocab_size=51_864)
    change(folder / "generation_config.json", is_multilingual=True)

    examination = examine(folder, Words(english_only_vocabulary()), None)

    assert examination.tokens.languages == {}
    assert examination.tokens.tasks == {}
    assert examination.abilities.languages == ("en",)
    assert examination.abilities.tasks == ("transcribe",)
    assert examination.tokens.timestamps == range(50_363, 51_864)
    assert "is_multilingual was True" in repairs(examination)


def test_vocabulary_without_timestamps(folder: Path, tokenizer: Any) -> None:
    specials = tokenizer.convert_tokens_to_ids("<|notimestamps|>") + 1
    change(folder / "config.json", vocab_size=specials)

    examination = examine(folder, tokenizer, None)

    assert not examination.abilities.segment_timestamps
    assert len(examination.tokens.timestamps) == 0
    assert "no timestamps" in repairs(examination)


def test_language_added_by_a_fine_tune_is_found(folder: Path) -> None:
    (folder / "ananse.json").unlink()
    vocabulary = {**english_only_vocabulary(), "<|tw|>": 51_864}
    change(folder / "config.json", vocab_size=51_867)

    assert "tw" in examine(folder, Words(vocabulary), None).abilities.languages


def test_foreign_tokenizer_is_refused(folder: Path) -> None:
    with pytest.raises(UnusableModel, match="startoftranscript"):
        examine(folder, Words({"<s>": 0, "</s>": 1}), None)


def test_mel_settings_come_from_either_file(folder: Path, tokenizer: Any) -> None:
    healthy = examine(folder, tokenizer, None)
    (folder / "preprocessor_config.json").unlink()
    from_processor = examine(folder, tokenizer, None)
    (folder / "processor_config.json").unlink()
    from_nothing = examine(folder, tokenizer, None)

    assert healthy.features["feature_size"] == from_processor.features["feature_size"] == 80
    assert healthy.abilities.repairs == ()
    assert "processor_config.json" in repairs(from_processor)
    assert "Whisper's own values" in repairs(from_nothing)


def test_mel_bins_are_the_encoders(folder: Path, tokenizer: Any) -> None:
    change(folder / "config.json", num_mel_bins=128)

    mended = examine(folder, tokenizer, None)

    assert mended.features["feature_size"] == 128
    assert "128 mel bins" in repairs(mended)


def test_longest_window(folder: Path, tokenizer: Any) -> None:
    assert examine(folder, tokenizer, 12.0).abilities.window_s == 12.0
    (folder / "ananse.json").write_text('{"window_s": 9}')
    assert examine(folder, tokenizer, None).abilities.window_s == 9.0
    (folder / "ananse.json").unlink()
    assert examine(folder, tokenizer, None).abilities.window_s == 30.0


def test_what_the_encoder_may_leave_out(folder: Path, tokenizer: Any) -> None:
    """Nothing, unless whoever made the weights has measured it."""
    (folder / "ananse.json").unlink()
    assert not examine(folder, tokenizer, None).bears
    (folder / "ananse.json").write_text('{"bears": "int8+1.3s"}')
    assert examine(folder, tokenizer, None).bears == Shortcuts(1.3, int8=True)
    (folder / "ananse.json").write_text('{"bears": "a lot"}')
    with pytest.raises(UnusableModel, match=r"ananse\.json is wrong: shortcuts=a lot"):
        examine(folder, tokenizer, None)


def test_broken_json_is_named(folder: Path, tokenizer: Any) -> None:
    (folder / "generation_config.json").write_text("{")

    with pytest.raises(UnusableModel, match=r"generation_config\.json is not valid JSON"):
        examine(folder, tokenizer, None)
