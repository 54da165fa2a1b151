"""The training: it learns, it goes on where it was stopped, and what it writes is a Whisper checkpoint."""

from pathlib import Path

import pytest
import torch
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from models.training.corpus import Corpus
from models.training.train import Course, Training, train
from models.training.windows import Stage

# Minutes, where the processor has no fast matrices and something else to do.
pytestmark = pytest.mark.timeout(900)

HOUR_STEPS = Stage(hours=4 * 8 / 3600, window_s=8, batch=2, timestamps=0.5)
COURSE = Course(
    stages=(HOUR_STEPS, Stage(hours=30 / 3600, window_s=30, batch=1, timestamps=1.0)), warm_hours=0.1
)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def training(untrained: Path, corpus: Corpus, course: Course = COURSE) -> Training:
    return Training(course, untrained, corpus, "cpu")


@pytest.mark.parametrize(
    ("heard", "share"), [(0.0, 0.025), (4.0, 1.0), (40.0, 1.0), (70.0, 0.5), (100.0, 0.01)]
)
def test_the_learning_rate_rises_stays_and_falls(heard: float, share: float) -> None:
    course = Course(stages=(Stage(hours=100, window_s=8, batch=1, timestamps=0),))

    assert course.rate_at(heard) == pytest.approx(share * course.rate)


def test_a_course_in_other_hours_keeps_its_shares() -> None:
    course = COURSE.of(2 * COURSE.hours)

    assert [stage.hours for stage in course.stages] == [2 * stage.hours for stage in COURSE.stages]
    assert COURSE.of(None) is COURSE


@pytest.mark.training
def test_it_learns_what_it_hears(untrained: Path, corpus: Corpus) -> None:
    course = Course(
        stages=(Stage(hours=1, window_s=8, batch=2, timestamps=0.0, disturbed=0.0),), warm_hours=0.05
    )
    run = training(untrained, corpus, course)
    batches = run.batches()
    losses = [run.step(next(batches)) for _ in range(25)]

    assert losses[-1].phones < 0.8 * losses[0].phones
    assert losses[-1].text < 0.8 * losses[0].text


@pytest.mark.training
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not(
    untrained: Path, corpus: Corpus, tmp_path: Path
) -> None:
    whole = training(untrained, corpus)
    for batch in whole.batches():
        whole.step(batch)
    stopped = training(untrained, corpus)
    stopped.step(next(stopped.batches()))
    stopped.keep(tmp_path / "training.state")
    again = training(untrained, corpus)
    train(again, tmp_path)

    assert (again.steps, again.heard) == (whole.steps, whole.heard) == (3, COURSE.hours)
    for name, weights in whole.learner.state_dict().items():
        assert torch.allclose(weights, again.learner.state_dict()[name], atol=1e-5), name


@pytest.mark.training
def test_what_comes_out_is_a_checkpoint(untrained: Path, corpus: Corpus, tmp_path: Path) -> None:
    run = training(untrained, corpus)
    checkpoint = train(run, tmp_path)
    whisper = WhisperForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32)
    processor = WhisperProcessor.from_pretrained(checkpoint)
    learned = run.learner.whisper.state_dict()

    assert whisper.config.to_dict().get("_attn_implementation") is None
    assert processor.tokenizer.decode(
        processor.tokenizer(" two red boxes").input_ids, skip_special_tokens=True
    )
    assert whisper.generation_config.no_timestamps_token_id == whisper.config.vocab_size - 1502
    for name, weights in whisper.state_dict().items():
        assert torch.allclose(weights, learned[name], atol=1e-3), name
