"""Windows of all kinds side by side in slots write what Transformers' `generate` writes for each of them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperTokenizer

from tests.support.checkpoints import load_random, write_random
from tests.support.windows import mixed
from worker.engine import decoding
from worker.engine.loading import Loaded
from worker.engine.values import SAMPLE_RATE, Ended, Hypothesis, Window
from worker.engine.whisper import WhisperRunner

pytestmark = pytest.mark.model

SLOTS = 4
FEWEST_TOKENS, MOST_TOKENS = 12, 24


class Oracle:
    def __init__(self, folder: Path) -> None:
        self.model = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
        self.tokenizer = WhisperTokenizer.from_pretrained(folder)
        self.mel = WhisperFeatureExtractor.from_pretrained(folder)

    def tokens(self, window: Window, most: int, *, timestamps: bool) -> tuple[int, ...]:
        options = window.options
        more: dict[str, Any] = {}
        if options.prompt:
            more["prompt_ids"] = self.tokenizer.get_prompt_ids(options.prompt, return_tensors="pt")
        features = self.mel(
            window.pcm / 32768.0, sampling_rate=SAMPLE_RATE, return_tensors="pt"
        ).input_features
        config = self.model.generation_config
        first_timestamp = config.no_timestamps_token_id + 1
        # Trained models do not write them; `generate` lets random weights do so.
        stop = first_timestamp if timestamps else self.model.config.vocab_size
        never = range(config.decoder_start_token_id, stop)
        with torch.inference_mode():
            batch = self.model.generate(
                features,
                language=options.language,
                task=options.task,
                return_timestamps=timestamps,
                force_unique_generate_call=True,
                max_new_tokens=most,
                suppress_tokens=[*(config.suppress_tokens or ()), *never],
                **more,
            )
        ids: list[int] = batch[0].tolist()
        written = ids[ids.index(config.decoder_start_token_id) + (3 if timestamps else 4) :]
        return tuple(written[:-1] if written[-1] == config.eos_token_id else written)


@pytest.fixture(
    scope="module", params=["tiny", "base", pytest.param("small", marks=[pytest.mark.slow, pytest.mark.calm])]
)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random(tmp_path_factory.mktemp("shapes") / request.param, request.param)


@pytest.fixture(scope="module")
def of_shape(folder: Path) -> Loaded:
    return load_random(folder)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """Of the smallest shape, for what does not depend on it."""
    return load_random(write_random(tmp_path_factory.mktemp("shapes") / "tiny", "tiny"))


@pytest.fixture(scope="module")
def oracle(folder: Path) -> Oracle:
    return Oracle(folder)


@pytest.fixture(autouse=True)
def few_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights never come to an end: the cap does, and it differs with the length."""
    monkeypatch.setattr(decoding, "TOKENS_AT_LEAST", FEWEST_TOKENS)
    monkeypatch.setattr(decoding, "TOKENS_PER_SECOND", 2)


def runner_of(
    loaded: Loaded, slots: int, *, timestamps: bool = True, as_on_card: bool = False
) -> WhisperRunner:
    """On a card torch writes; on a processor the compiled pass does."""
    abilities = replace(loaded.card.abilities, segment_timestamps=timestamps)
    kept = None if as_on_card else torch.float32
    named = replace(loaded, card=replace(loaded.card, abilities=abilities), kept=kept)
    return WhisperRunner(named, slots, as_on_card=as_on_card)


@pytest.mark.parametrize(("timestamps", "as_on_card"), [(True, False), (False, False), (True, True)])
def test_greedy_tokens_are_those_of_generate(
    of_shape: Loaded, oracle: Oracle, timestamps: bool, as_on_card: bool
) -> None:
    windows = mixed(6)

    found = runner_of(of_shape, SLOTS, timestamps=timestamps, as_on_card=as_on_card).run(windows)

    for one, ours in zip(windows, found, strict=True):
        theirs = oracle.tokens(one, int(FEWEST_TOKENS + 2 * one.duration_s), timestamps=timestamps)
        assert len(theirs) >= 4
        assert ours.tokens[: len(theirs)] == theirs


@pytest.mark.parametrize("as_on_card", [False, True])
def test_a_window_alone_and_among_fifteen_others(loaded: Loaded, as_on_card: bool) -> None:
    windows = mixed(16)
    windows[3] = replace(windows[3], options=replace(windows[3].options, temperatures=(0.7,)))

    together = runner_of(loaded, 16, as_on_card=as_on_card).run(windows)
    alone = runner_of(loaded, 1)

    for number in (0, 3, 5, 15):
        (one,) = alone.run([windows[number]])
        assert one.tokens == together[number].tokens
        assert one.avg_logprob == pytest.approx(together[number].avg_logprob, abs=1e-3)


def finished(runner: WhisperRunner, numbers: Sequence[int]) -> dict[int, Hypothesis]:
    ended: list[Ended] = []
    while len(ended) < len(numbers):
        ended += runner.step()
    return {one.number: one.hypothesis for one in ended}


def test_windows_come_and_go_and_leave_no_trace(loaded: Loaded) -> None:
    """Slots are filled while others write, emptied in the middle, moved together, and made fewer and more."""
    windows = mixed(8)
    expected = [one.tokens for one in runner_of(loaded, 8).run(windows)]
    runner = runner_of(loaded, 3)

    for number in (0, 1, 2):
        runner.seat(number, windows[number])
    for _ in range(9):
        assert runner.step() == []
    runner.unseat(0)
    runner.seat(3, windows[3])
    for _ in range(4):
        assert runner.step() == []
    runner.unseat(3)
    runner.resize(2)
    found = finished(runner, [1, 2])
    runner.resize(4)
    for number in (4, 5, 6, 7):
        runner.seat(number, windows[number])
    found |= finished(runner, [4, 5, 6, 7])

    assert {number: one.tokens for number, one in found.items()} == {
        number: expected[number] for number in (1, 2, 4, 5, 6, 7)
    }


def test_a_step_is_short(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    """One window is heard, or one token written in all slots: whoever comes or goes waits no longer."""
    runner = runner_of(loaded, 2)
    rows: list[int] = []
    write = runner._decoder.step

    def counted(*given: Any, **more: Any) -> torch.Tensor:
        rows.append(len(given[0]))
        return write(*given, **more)

    monkeypatch.setattr(runner._decoder, "step", counted)
    for number, one in enumerate(mixed(3)):
        runner.seat(number, one)

    for _ in range(4):
        runner.step()

    assert rows == [2, 2]


def test_memory_of_a_slot_is_told(loaded: Loaded) -> None:
    runner = runner_of(loaded, 2)
    caches = [cache for caches, _ in runner._decoder._caches() for cache in caches]

    assert int(runner.card.details["slot_bytes"]) == sum(cache.nbytes for cache in caches) // 2


def test_a_window_in_a_hurry_is_heard_first_and_written_alone(loaded: Loaded) -> None:
    """The others rest meanwhile, and go on as if nothing had been."""
    windows = mixed(6)
    expected = [one.tokens for one in runner_of(loaded, 6).run(windows)]
    runner = runner_of(loaded, 6)
    for number in range(4):
        runner.seat(number, windows[number])
    for _ in range(9):
        assert runner.step() == []
    runner.seat(5, windows[5])
    runner.seat(4, windows[4])

    steps, ended = 0, list[Ended]()
    while not ended:
        ended = runner.step(urgent=[4])
        steps += 1
    found = {one.number: one.hypothesis for one in ended}
    assert list(found) == [4]
    assert [seat.number for seat in runner._coming] == [5]
    assert steps < len(expected[4]) + 12
    found |= finished(runner, [0, 1, 2, 3, 5])

    assert {number: one.tokens for number, one in found.items()} == dict(enumerate(expected))


def test_who_is_no_longer_there_holds_up_nobody(loaded: Loaded) -> None:
    runner = runner_of(loaded, 2)
    windows = mixed(2)
    expected = [one.tokens for one in runner_of(loaded, 2).run(windows)]
    for number in (0, 1):
        runner.seat(number, windows[number])

    found: list[Ended] = []
    while len(found) < 2:
        found += runner.step(urgent=[7])

    assert {one.number: one.hypothesis.tokens for one in found} == dict(enumerate(expected))
