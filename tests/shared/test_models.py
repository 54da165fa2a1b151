"""The `ANANSE_MODELS` line as an operator writes it."""

import pytest

from shared.models import ModelSource, parse_models, queue_of


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("org/whisper", ModelSource("org/whisper", "org/whisper")),
        ("  org/whisper , ", ModelSource("org/whisper", "org/whisper")),
        ("small=org/whisper", ModelSource("small", "org/whisper")),
        ("org/whisper@v1", ModelSource("org/whisper", "org/whisper", "v1")),
        ("small=org/whisper@v1?window_s=8", ModelSource("small", "org/whisper", "v1", 8.0)),
        ("org/whisper?window_s=7.5", ModelSource("org/whisper", "org/whisper", None, 7.5)),
        ("models/synthetic-en", ModelSource("synthetic-en", "models/synthetic-en")),
        ("models/synthetic-en/", ModelSource("synthetic-en", "models/synthetic-en/")),
        ("./weights/mine", ModelSource("mine", "./weights/mine")),
        ("/srv/weights/mine", ModelSource("mine", "/srv/weights/mine")),
        ("mine=/srv/a@b/weights@v1", ModelSource("mine", "/srv/a@b/weights", "v1")),
        ("twi", ModelSource("twi", "teckedd/whisper-small-serlabs-twi-asr")),
        ("twi@main", ModelSource("twi", "teckedd/whisper-small-serlabs-twi-asr", "main")),
        ("t=twi", ModelSource("t", "teckedd/whisper-small-serlabs-twi-asr")),
    ],
)
def test_a_model_is_read(line: str, expected: ModelSource) -> None:
    assert parse_models(line) == (expected,)


def test_several_models_keep_their_order() -> None:
    assert [model.name for model in parse_models("b=org/x, a=org/y,org/z")] == ["b", "a", "org/z"]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("", "at least one model must be named"),
        (" , ", "at least one model must be named"),
        ("a=org/x,a=org/y", "two models have the same name"),
        ("=org/x", "'' cannot be a model's name"),
        ("a b=org/x", "cannot be a model's name"),
        ("../x=org/x", "cannot be a model's name"),
        ("a..b=org/x", "cannot be a model's name"),
        (f"{'a' * 97}=org/x", "cannot be a model's name"),
        ("org/x?window_s=31", "only \\?window_s=1..30"),
        ("org/x?window_s=0.5", "only \\?window_s=1..30"),
        ("org/x?window_s=nan", "only \\?window_s=1..30"),
        ("org/x?window_s=wide", "only \\?window_s=1..30"),
        ("org/x?beams=5", "only \\?window_s=1..30"),
        ("alias=", "alias|source"),
    ],
)
def test_a_wrong_line_is_refused_in_one_sentence(line: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        parse_models(line)


def test_every_model_has_its_own_queue() -> None:
    assert queue_of("org/whisper") == "transcribe.org/whisper"
