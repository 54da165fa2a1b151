"""What a step chose may be read one step late: whatever happens in between, no window's text is another."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from tests.support.windows import mixed
from worker.engine import decoding, whisper
from worker.engine.loading import Loaded
from worker.engine.values import Hypothesis, Window
from worker.engine.whisper import WhisperRunner

pytestmark = pytest.mark.model

COUNT = 8
TEMPERATURES = ((0.0,), (0.0, 0.6), (0.7,), (0.0, 0.4, 0.8))
"""Random weights are never sure of their first draft, so that each of them has its turn."""


@pytest.fixture(scope="module", autouse=True)
def few_tokens() -> Iterator[None]:
    """Caps differ with the length of a window; two equal words are a loop."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "TOKENS_AT_LEAST", 8)
        patch.setattr(decoding, "TOKENS_PER_SECOND", 2)
        patch.setattr(decoding, "LEAST_CYCLED", 2)
        patch.setattr(decoding, "CYCLES", 2)
        patch.setattr(decoding, "MAX_COMPRESSION_RATIO", 0.8)
        patch.setattr(whisper, "LOOP_LOOK_STEPS", 4)
        yield


@pytest.fixture(scope="module")
def windows() -> list[Window]:
    """Of all lengths, with and without words, in all languages, behind prompts of all lengths."""
    found = []
    for number, one in enumerate(mixed(COUNT)):
        temperatures = TEMPERATURES[number % len(TEMPERATURES)]
        options = replace(one.options, temperatures=temperatures, word_timestamps=number % 5 == 0)
        found.append(replace(one, options=options))
    return found


@pytest.fixture(scope="module")
def alone(nano: Loaded, windows: Sequence[Window]) -> list[Hypothesis]:
    """What each of them gives with nothing beside it, every step waited for."""
    runner = WhisperRunner(nano, 1, as_on_card=False)
    return [runner.run([one])[0] for one in windows]


def assert_same(found: Hypothesis, expected: Hypothesis) -> None:
    assert found.tokens == expected.tokens
    assert (found.text, found.language, found.temperature) == (
        expected.text,
        expected.language,
        expected.temperature,
    )
    assert found.avg_logprob == pytest.approx(expected.avg_logprob, abs=1e-3)
    assert found.no_speech_prob == pytest.approx(expected.no_speech_prob, abs=1e-4)


def test_the_windows_are_of_all_kinds(alone: Sequence[Hypothesis]) -> None:
    """Retried ones too: without them the tests below would say less."""
    assert {one.temperature for one in alone} == {0.0, 0.7, 0.8}


@pytest.mark.parametrize("slots", [1, 5, COUNT])
def test_steps_that_are_read_late_change_nothing(
    nano: Loaded, windows: Sequence[Window], alone: Sequence[Hypothesis], slots: int
) -> None:
    for found, expected in zip(WhisperRunner(nano, slots, as_on_card=True).run(windows), alone, strict=True):
        assert_same(found, expected)


@pytest.mark.parametrize("as_on_card", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens_in_between(
    nano: Loaded, windows: Sequence[Window], alone: Sequence[Hypothesis], seed: int, as_on_card: bool
) -> None:
    """Windows come, are forgotten and come again, slots become fewer and more, some are in a hurry."""
    dice = random.Random(seed)
    runner = WhisperRunner(nano, 3, as_on_card=as_on_card)
    slots, waiting, seated = 3, list(range(COUNT)), list[int]()
    found: dict[int, Hypothesis] = {}
    while waiting or seated:
        what = dice.random()
        if what < 0.3 and waiting and len(seated) < slots:
            seated.append(waiting.pop(0))
            runner.seat(seated[-1], windows[seated[-1]])
        elif 0.3 < what < 0.32 and seated:
            waiting.append(seated.pop(dice.randrange(len(seated))))
            runner.unseat(waiting[-1])
        elif 0.32 < what < 0.35:
            slots = dice.randint(max(1, len(seated)), 5)
            runner.resize(slots)
        else:
            hurried = dice.sample(seated, dice.randint(0, len(seated))) if what > 0.7 else []
            for ended in runner.step(urgent=hurried):
                seated.remove(ended.number)
                found[ended.number] = ended.hypothesis

    for number, expected in enumerate(alone):
        assert_same(found[number], expected)


def test_the_decoder_s_end_is_no_step_too_far(
    nano: Loaded, windows: Sequence[Window], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A draft as long as the decoder: the step too many, begun before its end is known, has no place."""
    monkeypatch.setattr(decoding, "TOKENS_AT_LEAST", 1_000)
    one = replace(
        windows[0], options=replace(windows[0].options, prompt="many words " * 200, word_timestamps=False)
    )

    late, punctual = (
        WhisperRunner(nano, 1, as_on_card=as_on_card).run([one])[0] for as_on_card in (True, False)
    )

    assert len(late.tokens) > 200
    assert_same(late, punctual)
