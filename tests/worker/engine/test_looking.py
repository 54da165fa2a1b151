"""Word times of several windows from one pass: those of each window alone, and those of Transformers."""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from transformers import WhisperForConditionalGeneration

from shared.models import ModelSource
from tests.fakes import hypothesis
from tests.support.card import CardRunner
from tests.support.checkpoints import BUNDLED, SHAPES, write_random
from tests.support.service import SAMPLES
from worker.engine import alignment, decoding
from worker.engine.alignment import Said
from worker.engine.engine import Engine
from worker.engine.loading import Loaded, load
from worker.engine.looking import ON_A_CARD, PATIENCE_STEPS, Looking, Standing
from worker.engine.seats import Seat
from worker.engine.text_decoder import Decoder
from worker.engine.values import SAMPLE_RATE, DecodingOptions, Ended, Hypothesis, Window
from worker.engine.whisper import WhisperRunner

pytestmark = pytest.mark.model

LANGUAGES = ("en", "fr", "yo")
TASKS = ("transcribe", "translate")
PROMPTS = (None, "A lake.", "Once upon a time there was a king who had a very long name indeed.")
FEWEST_TOKENS = 12
ROWS = (4, 0, 2)
"""No neighbours, and not in order."""


def loaded_from(folder: Path) -> Loaded:
    source = ModelSource("random", str(folder))
    return load(source, device="cpu", dtype="float32", threads=1, hf_endpoint=None)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random(tmp_path_factory.mktemp("shapes") / "tiny", "tiny")


@pytest.fixture(scope="module")
def loaded(tiny: Path) -> Loaded:
    return loaded_from(tiny)


@pytest.fixture(scope="module")
def bundled() -> Loaded:
    return loaded_from(BUNDLED)


@pytest.fixture
def few_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights never come to an end: the cap does, two tokens later for each second."""
    monkeypatch.setattr(decoding, "TOKENS_AT_LEAST", FEWEST_TOKENS)
    monkeypatch.setattr(decoding, "TOKENS_PER_SECOND", 2)


def spoken(seconds: float, number: int = 0, **options: Any) -> Window:
    pcm, _ = soundfile.read(SAMPLES / "minute.flac", dtype="int16")
    first = number * SAMPLE_RATE
    chosen = DecodingOptions(
        language="en", word_timestamps=True, temperatures=(0.0,), prompt=None, task="transcribe"
    )
    pcm = np.asarray(pcm[first : first + int(seconds * SAMPLE_RATE)], dtype=np.int16)
    return Window(number, 0.0, pcm, seconds, replace(chosen, **options))


def mixed(count: int) -> list[Window]:
    """Of all languages, tasks, prompts and lengths."""
    return [
        spoken(
            1 + number * 3 % 7,
            number,
            language=LANGUAGES[number % len(LANGUAGES)],
            task=TASKS[number // 2 % len(TASKS)],
            prompt=PROMPTS[number % len(PROMPTS)],
        )
        for number in range(count)
    ]


def passes(runner: WhisperRunner, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Windows in each pass for words, as they come."""
    rows: list[int] = []
    questions = runner._decoder.questions

    def counted(*given: Any) -> list[torch.Tensor]:
        rows.append(len(given[0]))
        return questions(*given)

    monkeypatch.setattr(runner._decoder, "questions", counted)
    return rows


def said(length: int, dice: random.Random) -> Said:
    text = tuple(dice.randrange(1000) for _ in range(length))
    return Said((1001, 1002, 1003, 1004)[: dice.randint(2, 4)], text, 1000, dice.uniform(0.1, 30.0))


def filled(loaded: Loaded, states: torch.Tensor) -> Decoder:
    decoder = Decoder(loaded.model, 6)
    for row, one in zip(ROWS, states, strict=True):
        decoder.place(row, one)
    return decoder


@pytest.mark.parametrize("shape", ["tiny", "base"])
@pytest.mark.parametrize("seed", range(2))
def test_where_several_texts_look_is_where_transformers_looks_for_each(
    shape: str, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    dice = random.Random(seed)
    folder = tmp_path_factory.getbasetemp() / f"looks-{shape}"
    loaded = loaded_from(folder if folder.exists() else write_random(folder, shape))
    layers, heads, width = SHAPES[shape]
    chosen = [(layer, head) for layer in range(layers) for head in range(heads)]
    chosen = sorted(dice.sample(chosen, 5))
    texts = [said(dice.choice((1, 7, 40, 90)), dice) for _ in ROWS]
    states = torch.randn(len(ROWS), 1500, width, generator=torch.Generator().manual_seed(seed))

    with torch.inference_mode():
        found = alignment.look(filled(loaded, states), ROWS, texts, chosen)

    model = WhisperForConditionalGeneration.from_pretrained(folder, attn_implementation="eager")
    for gaze, text, sound in zip(found, texts, states, strict=True):
        with torch.inference_mode():
            looked = model.model.decoder(
                input_ids=torch.tensor([text.tokens]),
                encoder_hidden_states=sound[None],
                output_attentions=True,
            ).cross_attentions
        whole = torch.stack([looked[layer][0, head] for layer, head in chosen])
        part = whole[:, :, : text.positions]
        expected = part / part.sum(-1, keepdim=True)
        assert gaze.attention.shape == expected.shape
        assert gaze.first == len(text.prompt)
        np.testing.assert_allclose(gaze.attention, expected.numpy(), rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize("seed", range(2))
def test_several_texts_look_where_each_does_alone(loaded: Loaded, seed: int) -> None:
    dice = random.Random(seed)
    texts = [said(length, dice) for length in (3, 80, 21)]
    states = torch.randn(len(ROWS), 1500, SHAPES["tiny"][2], generator=torch.Generator().manual_seed(seed))
    with torch.inference_mode():
        decoder = filled(loaded, states)

        together = alignment.look(decoder, ROWS, texts, loaded.heads)
        alone = [
            alignment.look(decoder, [row], [text], loaded.heads)[0]
            for row, text in zip(ROWS, texts, strict=True)
        ]

    for ours, theirs in zip(together, alone, strict=True):
        np.testing.assert_allclose(ours.attention, theirs.attention, rtol=1e-3, atol=1e-6)
        assert list(alignment.token_starts(ours)) == list(alignment.token_starts(theirs))


def test_what_is_written_in_the_rows_stays(loaded: Loaded) -> None:
    with torch.inference_mode():
        decoder = Decoder(loaded.model, 3)
        decoder.read(1, range(9))
        before = [cache.clone() for caches, _ in decoder._caches() for cache in caches]

        decoder.questions([1, 2], [range(20), range(4)], [1, 3])

    after = [cache for caches, _ in decoder._caches() for cache in caches]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert any(one.any() for one in before)


def test_the_pass_ends_at_the_last_layer_that_is_asked(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch.inference_mode():
        decoder = Decoder(loaded.model, 2)
        expected = decoder.questions([0, 1], [range(20), range(4)], [0, 1])
        first, last, above, *_ = decoder._layers
        last = replace(last, sound_out=None, widen=None)
        monkeypatch.setattr(decoder, "_layers", [first, last, replace(above, own=None)])

        found = decoder.questions([0, 1], [range(20), range(4)], [0, 1])

    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def words(found: Hypothesis) -> list[tuple[float, float, str]]:
    return [
        (word.start, word.end, word.text) for utterance in found.utterances for word in utterance.words or ()
    ]


@pytest.mark.usefixtures("few_tokens")
def test_words_of_all_kinds_of_windows_in_company_are_those_alone(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    windows = mixed(9)
    alone = WhisperRunner(loaded, 1)
    runner = CardRunner(loaded, 12)
    rows = passes(runner, monkeypatch)

    together = runner.run(windows)

    assert max(rows) > 1
    assert len(rows) < sum(rows)
    for ours, window in zip(together, windows, strict=True):
        [theirs] = alone.run([window])
        assert ours.tokens == theirs.tokens
        assert words(ours) == words(theirs)
    assert sum(bool(words(one)) for one in together) == sum(rows)


def test_words_of_recordings_in_company_are_those_alone(
    bundled: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    windows = [spoken(seconds, 4 * number) for number, seconds in enumerate((3.0, 6.0, 5.0, 3.0))]
    alone = WhisperRunner(bundled, 1)
    runner = CardRunner(bundled, 8)
    rows = passes(runner, monkeypatch)

    together = runner.run(windows)

    assert max(rows) > 1
    for ours, window in zip(together, windows, strict=True):
        [theirs] = alone.run([window])
        assert words(ours)
        assert words(ours) == words(theirs)


def steps_of(runner: WhisperRunner, rows: list[int]) -> tuple[list[Ended], list[int]]:
    """Steps until all have ended, and at which of them there was a pass for words."""
    ended: list[Ended] = []
    looked: list[int] = []
    number = 0
    while runner._coming or any(runner._rows) or len(runner._endings):
        before = len(rows)
        ended += runner.step()
        looked += [number] * (len(rows) - before)
        number += 1
    return ended, looked


@pytest.mark.usefixtures("few_tokens")
@pytest.mark.parametrize(
    ("slots", "lengths", "expected", "why"),
    [
        (4, (1.0, 2.0, 6.0), [2, 1], "the second ends two steps later, the third too late"),
        (4, (1.0, 1.0, 6.0), [2, 1], "in the same step"),
        (3, (1.0, 2.0, 6.0), [1, 1, 1], "no slot is free: others may be waiting for one"),
        (4, (1.0,), [1], "nobody else is there"),
        (12, (1.0,) * (ON_A_CARD + 1), [ON_A_CARD, 1], "a pass has its limits"),
    ],
)
def test_who_is_looked_at_together(
    loaded: Loaded,
    monkeypatch: pytest.MonkeyPatch,
    slots: int,
    lengths: Sequence[float],
    expected: list[int],
    why: str,
) -> None:
    runner = CardRunner(loaded, slots)
    rows = passes(runner, monkeypatch)
    for number, seconds in enumerate(lengths):
        runner.seat(number, spoken(seconds))

    ended, _ = steps_of(runner, rows)

    assert rows == expected, why
    assert len(ended) == len(lengths)
    assert all(words(one.hypothesis) for one in ended)


@pytest.mark.usefixtures("few_tokens")
def test_patience_is_a_few_steps(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    """In company, that is: nobody else could join who is alone."""
    looked = []
    for company in (0, 1):
        runner = CardRunner(loaded, 4)
        rows = passes(runner, monkeypatch)
        runner.seat(0, spoken(1.0))
        if company:
            runner.seat(1, spoken(7.0))
        _, steps = steps_of(runner, rows)
        looked.append(steps[0])

    alone, in_company = looked
    assert in_company == alone + PATIENCE_STEPS


def test_a_full_pass_waits_for_nobody(loaded: Loaded) -> None:
    looking = Looking(Decoder(loaded.model, 1), loaded.tokens, loaded.heads, at_once=2)
    one, two, three = (Standing(row, Seat(row, spoken(1.0)), hypothesis()) for row in range(3))

    assert looking.due([one], may_wait=True) == []
    assert looking.due([one, two, three], may_wait=True) == [[one, two], [three]]
    assert looking.due([one], may_wait=False) == [[one]]


def test_who_is_cancelled_while_words_are_made_does_not_end(loaded: Loaded) -> None:
    runner = WhisperRunner(loaded, 1)
    for number in (1, 2):
        window = spoken(1.0)
        runner._endings.add(Seat(number, window, parts=[(window, hypothesis(), None)]))

    runner.unseat(1)

    assert [one.number for one in runner.step()] == [2]


@pytest.mark.usefixtures("few_tokens")
def test_on_a_processor_nobody_waits(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = WhisperRunner(loaded, 4)
    rows = passes(runner, monkeypatch)
    for number, seconds in enumerate((1.0, 1.0, 2.0, 6.0)):
        runner.seat(number, spoken(seconds))

    steps_of(runner, rows)

    assert rows == [1, 1, 1, 1]


@pytest.mark.usefixtures("few_tokens")
def test_who_is_cancelled_while_waiting_is_not_looked_at(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    [expected] = WhisperRunner(loaded, 1).run([spoken(6.0)])
    runner = CardRunner(loaded, 4)
    rows = passes(runner, monkeypatch)
    runner.seat(0, spoken(1.0))
    runner.seat(1, spoken(6.0))
    while not any(seat and seat.stands for seat in runner._rows):
        assert runner.step() == []

    runner.unseat(0)
    ended, _ = steps_of(runner, rows)

    assert rows == [1]
    assert [one.number for one in ended] == [1]
    assert words(ended[0].hypothesis) == words(expected)


@pytest.mark.usefixtures("few_tokens")
def test_a_pass_that_does_not_fit_costs_nobody_the_job(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    windows = [spoken(1.0), spoken(2.0), spoken(6.0)]
    expected = WhisperRunner(loaded, 1).run(windows)
    runner = CardRunner(loaded, 4)
    questions = runner._decoder.questions
    tried: list[int] = []

    def cramped(rows: Sequence[int], *given: Any) -> list[torch.Tensor]:
        tried.append(len(rows))
        if len(rows) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return questions(rows, *given)

    monkeypatch.setattr(runner._decoder, "questions", cramped)
    engine = Engine(runner, 4)
    try:
        futures = [engine.submit("job", window) for window in windows]
        found = [future.result(timeout=120) for future in futures]
        assert engine.statistics().overflows >= 1
        assert engine.statistics().failed == 0
    finally:
        engine.close(timeout_s=60)

    assert max(tried) > 1
    assert [words(one) for one in found] == [words(one) for one in expected]


def test_a_words_probability_is_that_with_which_it_was_written(bundled: Loaded) -> None:
    runner = WhisperRunner(bundled, 2)

    found = runner.run([spoken(5.0), spoken(5.0, temperatures=(0.8,))])

    for one in found:
        assert one.utterances
        for utterance in one.utterances:
            assert len(utterance.logprobs) == len(utterance.tokens)
            assert np.mean(utterance.logprobs) == pytest.approx(utterance.avg_logprob)
            first = (utterance.words or ())[0]
            chances = np.exp(utterance.logprobs)
            means = [round(float(np.mean(chances[:stop])), 4) for stop in range(1, len(chances) + 1)]
            assert first.probability in means


@pytest.mark.parametrize("levels", [2, 3, 1000])
def test_the_middle_of_seven_neighbours(levels: int) -> None:
    rows = np.random.default_rng(levels).integers(0, levels, (5, 400)).astype(np.float32)

    found = alignment._medians(rows)

    around = np.lib.stride_tricks.sliding_window_view(rows, alignment.MEDIAN_WIDTH, axis=-1)
    assert np.array_equal(found, np.median(around, axis=-1))
