"""The network that learns: what it computes is Whisper, and its losses measure what they say."""

from pathlib import Path

import pytest
import torch
from transformers import WhisperForConditionalGeneration

from models.training.network import Learner, _look_loss
from models.training.network import untrained as make_untrained
from models.training.targets import NO_TARGET, NOWHERE


@pytest.fixture(scope="module")
def whisper(untrained: Path) -> WhisperForConditionalGeneration:
    return make_untrained(untrained, seed=1).eval()


@pytest.fixture(scope="module")
def learner(whisper: WhisperForConditionalGeneration) -> Learner:
    first_time = whisper.config.vocab_size - 1501
    return Learner(whisper, first_time).eval()


def test_the_encoder_is_whispers_own(learner: Learner) -> None:
    mel = torch.randn(1, 80, 3000)
    with torch.inference_mode():
        theirs = learner.whisper.model.encoder(mel).last_hidden_state
        ours = learner._encode(mel, 0)

    assert torch.allclose(ours, theirs, atol=1e-4)


def test_an_offset_moves_the_positions(learner: Learner) -> None:
    mel = torch.randn(1, 80, 800)
    with torch.inference_mode():
        assert not torch.allclose(learner._encode(mel, 0), learner._encode(mel, 500), atol=1e-2)


def test_no_token_sees_what_comes_after_it(learner: Learner) -> None:
    """An attention implementation without a mask of its own gets none: the next token is simply read then."""
    states = torch.randn(1, 400, learner.whisper.config.d_model)
    tokens = torch.tensor([[5, 6, 7, 8, 9]])
    changed = tokens.clone()
    changed[0, 3] = 99
    with torch.inference_mode():
        before, after = (
            learner.whisper.model.decoder(input_ids=ids, encoder_hidden_states=states).last_hidden_state
            for ids in (tokens, changed)
        )

    assert torch.equal(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3:], after[:, 3:])


def test_heads_that_look_at_the_right_time_cost_nothing() -> None:
    when = torch.tensor([[30.0, 60.0, NOWHERE]])
    right = torch.zeros(1, 4, 3, 100)
    right[:, :, 0, 30] = right[:, :, 1, 60] = 1
    early = right.roll(-10, dims=-1)

    assert _look_loss((right,), when) == pytest.approx(0.0, abs=1e-3)
    assert _look_loss((early,), when) == pytest.approx(2.0, abs=0.01)


def test_only_the_first_half_of_the_heads_is_told() -> None:
    when = torch.tensor([[30.0]])
    heads = torch.zeros(1, 4, 1, 100)
    heads[:, :2, 0, 30] = 1
    heads[:, 2:, 0, 90] = 1

    assert _look_loss((heads,), when) == pytest.approx(0.0, abs=1e-3)


def test_a_time_nearly_right_costs_less_than_one_far_off(learner: Learner) -> None:
    first_time = learner._first_time
    states = torch.randn(1, 3, learner.whisper.config.d_model)
    weight = learner.whisper.proj_out.weight
    states[0, 1] = weight[first_time + 52] * 40

    def loss(time: int) -> float:
        targets = torch.tensor([[7, first_time + time, NO_TARGET]])
        with torch.inference_mode():
            return float(learner._token_losses(states, targets)[1])

    assert loss(50) < loss(500)


def test_text_and_times_are_counted_apart(learner: Learner) -> None:
    states = torch.randn(1, 3, learner.whisper.config.d_model)
    with torch.inference_mode():
        text, times = learner._token_losses(states, torch.tensor([[7, NO_TARGET, 8]]))

    assert text > 0
    assert times == 0
