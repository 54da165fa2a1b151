"""The `ANANSE_MODELS` line as an operator writes it."""

import pytest

from shared.models import ModelSource, Shortcuts, models_on, parse_models, queue_of


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
        ("twi?device=cpu", ModelSource("twi", "teckedd/whisper-small-serlabs-twi-asr", devices=("cpu",))),
        (
            "a=org/x@v1?window_s=8&device=cuda:1+cpu&batch_size=16&dtype=float16",
            ModelSource("a", "org/x", "v1", 8.0, ("cuda:1", "cpu"), 16, "float16"),
        ),
        ("org/x?shortcuts=none", ModelSource("org/x", "org/x", shortcuts=Shortcuts())),
        ("org/x?shortcuts=2.5s", ModelSource("org/x", "org/x", shortcuts=Shortcuts(2.5))),
        ("org/x?shortcuts=int8+3s", ModelSource("org/x", "org/x", shortcuts=Shortcuts(3.0, int8=True))),
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
        ("org/x?beams=5", "only window_s, device, batch_size, dtype and shortcuts"),
        ("org/x?window_s=8&", "only window_s, device, batch_size, dtype and shortcuts"),
        ("org/x?shortcuts=", "write none, int8, 2.5s or int8\\+2.5s"),
        ("org/x?shortcuts=int4", "write none, int8"),
        ("org/x?shortcuts=-1s", "write none, int8"),
        ("org/x?shortcuts=1s+2s", "write none, int8"),
        ("org/x?shortcuts=none+1s", "write none, int8"),
        ("org/x?device=cpu:0", "'cpu:0' is no device"),
        ("org/x?device=cuda:1+", "'' is no device"),
        ("org/x?device=auto", "'auto' is no device"),
        ("org/x?device=cpu&device=cuda", "says device twice"),
        ("org/x?window_s=8&window_s=9", "says window_s twice"),
        ("org/x?batch_size=0", "batch_size=1..256"),
        ("org/x?batch_size=257", "batch_size=1..256"),
        ("org/x?batch_size=²", "batch_size=1..256"),
        ("org/x?dtype=int8", "one of float32, bfloat16, float16"),
        ("alias=", "alias|source"),
    ],
)
def test_a_wrong_line_is_refused_in_one_sentence(line: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        parse_models(line)


def test_every_model_has_its_own_queue() -> None:
    assert queue_of("org/whisper") == "transcribe.org/whisper"


def test_two_cards_and_three_models() -> None:
    models = parse_models("turbo=org/turbo?device=cuda,large=org/large?device=cuda:1,twi?device=cpu")

    placed = {d: [model.name for model in models_on(models, d)] for d in ("cuda:0", "cuda:1", "cpu")}

    assert placed == {"cuda:0": ["turbo"], "cuda:1": ["turbo", "large"], "cpu": ["twi"]}


def test_a_model_without_a_device_goes_everywhere() -> None:
    assert (
        len(models_on(parse_models("org/x"), "cuda:7")) == len(models_on(parse_models("org/x"), "cpu")) == 1
    )
