"""How attempts are judged."""

import pytest

from worker.engine.decoding import (
    Attempts,
    Draft,
    Written,
    has_run_into_a_loop,
    is_silent,
    max_tokens,
    to_draft,
)

EOS = 99


def draft(text: str, logprob: float, temperature: float = 0.0) -> Draft:
    return Draft((), (), logprob, text, temperature)


def outcome(attempts: Attempts, drafts: dict[float, Draft]) -> Draft:
    """Makes attempts until there is no other; `drafts` by temperature."""
    while attempts.goes_on(drafts[attempts.temperature]):
        pass
    assert attempts.best is not None
    return attempts.best


def test_a_good_draft_is_the_last() -> None:
    found = Attempts((0.0, 0.2))

    assert not found.goes_on(draft("good", -0.2))
    assert found.best == draft("good", -0.2)


def test_doubtful_drafts_are_tried_again_at_each_temperature_in_turn() -> None:
    loop = "and so on " * 40
    drafts = {0.0: draft(loop, -0.1), 0.2: draft("mumble", -2.0, 0.2), 0.4: draft("third", -0.4, 0.4)}

    assert outcome(Attempts((0.0, 0.2, 0.4, 0.6)), drafts).text == "third"


def test_a_silent_window_is_not_tried_again() -> None:
    quiet = draft("you", -2.0)
    attempts = Attempts((0.0, 0.2), no_speech_prob=0.9)

    assert not attempts.goes_on(quiet)
    assert is_silent(quiet, 0.9)
    assert not is_silent(quiet, 0.0)


def test_the_best_of_bad_drafts_is_kept() -> None:
    drafts = {0.0: draft("la " * 100, -0.1), 0.2: draft("fair", -1.2, 0.2), 0.4: draft("poor", -3.0, 0.4)}

    assert outcome(Attempts(tuple(drafts)), drafts).text == "fair"


def test_short_windows_have_few_tokens() -> None:
    assert max_tokens(8.0, (1, 2, 3), 448) == 16 + 96
    assert max_tokens(30.0, (1,) * 225, 448) == 448 - 225


def test_the_end_counts_in_the_mean_unless_the_cap_forced_it() -> None:
    ended = to_draft(Written((1, 2, EOS), (-1.0, -2.0, -3.0)), EOS, "a b", 0.0)
    capped = to_draft(Written((1, 2, EOS), (-1.0, -2.0, float("nan"))), EOS, "a b", 0.0)

    assert ended.tokens == capped.tokens == (1, 2)
    assert (ended.avg_logprob, capped.avg_logprob) == (-2.0, -1.5)
    assert ended.logprobs == (-1.0, -2.0)


@pytest.mark.parametrize("period", [1, 5, 16])
def test_a_loop_is_seen_before_its_end(period: int) -> None:
    opening = list(range(1000, 1020))
    tokens = opening + [number % period for number in range(80)]

    assert has_run_into_a_loop(tokens, "well then " + "and so on " * 40)
    assert not has_run_into_a_loop(tokens, "he said it four times over, each a little different")
    assert not has_run_into_a_loop(list(range(100)), "and so on " * 40)
