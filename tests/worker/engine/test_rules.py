"""The rules against Transformers' own processors, on logits of all kinds; no model."""

from collections.abc import Mapping
from types import SimpleNamespace

import pytest
import torch
from transformers.generation.logits_process import (
    LogitsProcessorList,
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
    WhisperTimeStampLogitsProcessor,
)

from worker.engine.doctor import Tokens
from worker.engine.rules import Rules

EOS, SOT, NO_TIMESTAMPS = 40, 41, 47
TIMESTAMPS = range(48, 70)
PROMPT = (SOT, 42, 45)
LANGUAGES: Mapping[str, int] = {"en": 42, "fr": 43}
STEPS = 12


def tokens(beyond: int = 0) -> Tokens:
    """`beyond` pieces of text have ids above the timestamps, as some fine-tunes have added them."""
    return Tokens(
        sot=SOT,
        eos=EOS,
        prev=46,
        no_timestamps=NO_TIMESTAMPS,
        timestamps=TIMESTAMPS,
        languages=LANGUAGES,
        tasks={"transcribe": 45},
        suppressed=(3, 4, 5),
        begin_suppressed=(7, EOS),
        max_initial_timestamp=10,
        vocabulary=TIMESTAMPS.stop + beyond,
    )


def rules_for(known: Tokens, slots: int, *, timestamps: bool = True) -> Rules:
    return Rules(known, slots, timestamps=timestamps, device=torch.device("cpu"))


def theirs(known: Tokens) -> LogitsProcessorList:
    config = SimpleNamespace(
        no_timestamps_token_id=NO_TIMESTAMPS,
        eos_token_id=EOS,
        bos_token_id=EOS,
        max_initial_timestamp_index=known.max_initial_timestamp,
        _detect_timestamp_from_logprob=True,
        forced_decoder_ids=None,
    )
    steering = range(SOT, TIMESTAMPS.start)
    return LogitsProcessorList(
        [
            SuppressTokensAtBeginLogitsProcessor(list(known.begin_suppressed), len(PROMPT)),
            SuppressTokensLogitsProcessor([*known.suppressed, *steering]),
            WhisperTimeStampLogitsProcessor(config, begin_index=len(PROMPT)),
        ]
    )


def logits(rows: int, seed: int, bias: float) -> torch.Tensor:
    """For all steps; `bias` is for timestamps, so that pairs of them come and words between."""
    torch.manual_seed(seed)
    drawn = torch.randn(STEPS, rows, TIMESTAMPS.stop) * 2
    drawn[:, :, TIMESTAMPS.start :] += bias
    drawn[:, :, EOS] -= 6
    return drawn


@pytest.mark.parametrize("seed", range(10))
def test_the_same_tokens_are_chosen_as_by_transformers(seed: int) -> None:
    rows, known = 6, tokens()
    ours, processors = rules_for(known, rows), theirs(known)
    for row in range(rows):
        ours.begin(row, max_tokens=STEPS, temperature=0.0, seed=0)
    written = torch.tensor([PROMPT] * rows)

    for scores in logits(rows, seed, bias=-2.0):
        choice, _ = ours.choose(scores)
        expected = processors(written, scores.clone()).log_softmax(-1)
        assert choice.tolist() == expected.argmax(-1).tolist()
        assert ours.last(slice(0, rows)).tolist() == choice.tolist()
        written = torch.cat([written, choice.unsqueeze(1)], 1)


def test_log_probabilities_are_those_of_what_may_be_chosen() -> None:
    known = tokens()
    ours, processors = rules_for(known, 1), theirs(known)
    ours.begin(0, max_tokens=STEPS, temperature=0.0, seed=0)
    written = torch.tensor([PROMPT])

    for scores in logits(1, seed=3, bias=-2.0):
        allowed = processors(written, scores.clone()).log_softmax(-1)
        choice, logprob = ours.choose(scores)
        assert float(logprob) == pytest.approx(float(allowed[0, choice[0]]), abs=1e-5)
        written = torch.cat([written, choice.unsqueeze(1)], 1)


def test_rows_begin_move_and_end_on_their_own() -> None:
    """A row in the company of others, begun later and moved, writes what it writes alone."""
    known, steps = tokens(), logits(1, seed=5, bias=-2.0)[:, 0]
    alone = rules_for(known, 1)
    alone.begin(0, max_tokens=STEPS, temperature=0.0, seed=0)
    expected = [int(alone.choose(scores.unsqueeze(0))[0]) for scores in steps]

    ours, noise = rules_for(known, 3), logits(3, seed=6, bias=-2.0)
    for row in range(3):
        ours.begin(row, max_tokens=STEPS, temperature=0.0, seed=0)
    ours.choose(noise[0])
    ours.begin(2, max_tokens=STEPS, temperature=0.0, seed=0)
    found = []
    for number, scores in enumerate(steps[:5]):
        company = torch.stack([noise[number][0], noise[number][1], scores])
        found.append(int(ours.choose(company)[0][2]))
    ours.move(2, 0)
    ours.resize(1)
    assert ours.last(slice(0, 1)).tolist() == found[-1:]
    found += [int(ours.choose(scores.unsqueeze(0))[0]) for scores in steps[5:]]

    assert found == expected


def test_without_timestamps_none_is_written() -> None:
    known = tokens()
    ours = rules_for(known, 4, timestamps=False)
    for row in range(4):
        ours.begin(row, max_tokens=STEPS, temperature=0.0, seed=0)

    for scores in logits(4, seed=1, bias=5.0):
        assert all(known.is_text(token) or token == EOS for token in ours.choose(scores)[0].tolist())


def test_text_above_the_timestamps_is_text() -> None:
    known = tokens(beyond=3)
    ours = rules_for(known, 1)
    ours.begin(0, max_tokens=STEPS, temperature=0.0, seed=0)
    scores = torch.zeros(1, known.vocabulary)
    scores[0, TIMESTAMPS.stop + 1] = 9.0

    first, second = int(ours.choose(scores)[0]), int(ours.choose(scores)[0])

    assert first in TIMESTAMPS
    assert second == TIMESTAMPS.stop + 1


def test_the_cap_ends_a_row_without_a_probability() -> None:
    ours = rules_for(tokens(), 1)
    ours.begin(0, max_tokens=3, temperature=0.0, seed=0)

    chosen = [ours.choose(scores) for scores in logits(1, seed=2, bias=-2.0)[:4]]

    assert [int(choice) == EOS for choice, _ in chosen] == [False, False, False, True]
    assert [bool(logprob.isnan()) for _, logprob in chosen] == [False, False, False, True]


def test_sampling_is_of_the_seed_and_the_row_s_own() -> None:
    scores = logits(2, seed=4, bias=-2.0)
    drawn = []
    for seed in (1, 1, 2):
        ours = rules_for(tokens(), 2)
        ours.begin(0, max_tokens=STEPS, temperature=0.0, seed=0)
        ours.begin(1, max_tokens=STEPS, temperature=1.0, seed=seed)
        drawn.append([ours.choose(one)[0].tolist() for one in scores])

    assert drawn[0] == drawn[1]
    assert [cold for cold, _ in drawn[0]] == [cold for cold, _ in drawn[2]]
    assert [hot for _, hot in drawn[0]] != [hot for _, hot in drawn[2]]
