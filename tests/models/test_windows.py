"""Windows to learn from: what is heard, what is to be written, and when."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import WhisperFeatureExtractor, WhisperProcessor

from models.training.corpus import Corpus
from models.training.disturbance import Noises
from models.training.targets import NO_TARGET, NOWHERE, POSITIONS
from models.training.windows import Mel, Stage, Windows

PLAIN = Stage(hours=1, window_s=30, batch=6, timestamps=1.0, disturbed=0.0)
SHORT = Stage(hours=1, window_s=8, batch=6, timestamps=0.0, disturbed=0.0)


@pytest.fixture
def processor(untrained: Path) -> WhisperProcessor:
    return WhisperProcessor.from_pretrained(untrained)


def windows(corpus: Corpus, processor: WhisperProcessor, stage: Stage, seed: int = 1) -> Windows:
    return Windows(corpus, processor.tokenizer, stage, seed)


def test_a_batch_depends_on_seed_and_step_alone(corpus: Corpus, processor: WhisperProcessor) -> None:
    stage = replace(PLAIN, disturbed=1.0, prompt=0.5, cut=0.5)
    first, again = windows(corpus, processor, stage), windows(corpus, processor, stage)
    first[6]

    assert torch.equal(first[7]["sound"], again[7]["sound"])
    assert torch.equal(first[7]["inputs"], again[7]["inputs"])
    assert not torch.equal(first[7]["sound"], again[8]["sound"])
    assert not torch.equal(first[7]["sound"], windows(corpus, processor, stage, seed=2)[7]["sound"])


def test_timestamps_say_when_the_text_is_heard(corpus: Corpus, processor: WhisperProcessor) -> None:
    first_time = processor.tokenizer.convert_tokens_to_ids("<|0.00|>")
    batch = windows(corpus, processor, PLAIN)[0]
    targets, when = batch["targets"], batch["when"]
    is_time = (targets >= first_time) & (when >= 0)

    assert is_time.any()
    assert ((targets[is_time] - first_time - when[is_time]).abs() <= 0.51).all()


def test_a_token_is_looked_for_inside_its_word(corpus: Corpus, processor: WhisperProcessor) -> None:
    """Where a token is said there is sound, whatever the window."""
    batch = windows(corpus, processor, SHORT)[3]
    loudness = batch["sound"].reshape(SHORT.batch, -1, 320).pow(2).mean(-1).sqrt()
    for row in range(SHORT.batch):
        frames = batch["when"][row][batch["when"][row] >= 0].long()
        assert (loudness[row][frames] > 0.02 * loudness[row].max()).float().mean() > 0.9


def test_phones_begin_with_the_sound(corpus: Corpus, processor: WhisperProcessor) -> None:
    batch = windows(corpus, processor, SHORT)[3]
    loudness = batch["sound"].reshape(SHORT.batch, -1, 320).pow(2).mean(-1).sqrt()
    spoken = batch["phones"] > 0

    assert loudness[spoken].mean() > 20 * loudness[~spoken].mean()


def test_short_windows_lie_anywhere_in_thirty_seconds(corpus: Corpus, processor: WhisperProcessor) -> None:
    made = windows(corpus, processor, SHORT)
    offsets = {made[step]["offset"] for step in range(20)}

    assert len(offsets) > 8
    assert all(0 <= offset <= POSITIONS - 400 for offset in offsets)


def test_nothing_said_is_no_speech(processor: WhisperProcessor, corpus: Corpus) -> None:
    made = windows(corpus, processor, PLAIN)
    inputs, targets, when = made._targets.of(np.random.default_rng(1), [], None, 0, True, 0.0)
    token = processor.tokenizer.convert_tokens_to_ids

    assert targets[0] == token("<|nospeech|>")
    assert targets[-2:] == [token("<|0.00|>"), token("<|endoftext|>")]
    assert set(when) == {NOWHERE}
    assert len(inputs) == len(targets) == len(when)


def test_a_prompt_is_no_target(corpus: Corpus, processor: WhisperProcessor) -> None:
    batch = windows(corpus, processor, replace(PLAIN, prompt=1.0))[0]
    token = processor.tokenizer.convert_tokens_to_ids
    for inputs, targets in zip(batch["inputs"].tolist(), batch["targets"].tolist(), strict=True):
        start = inputs.index(token("<|startoftranscript|>"))
        assert inputs[0] == token("<|startofprev|>")
        assert set(targets[:start]) == {NO_TARGET}


def test_the_spectrogram_is_whispers_own() -> None:
    sound = np.random.default_rng(1).standard_normal((2, 480_000)).astype(np.float32) * 0.1
    theirs = WhisperFeatureExtractor()(list(sound), sampling_rate=16_000, return_tensors="pt").input_features

    assert torch.allclose(Mel("cpu")(torch.from_numpy(sound)), theirs, atol=1e-4)


def test_a_window_may_end_anywhere_in_a_sentence(corpus: Corpus, processor: WhisperProcessor) -> None:
    """Wherever the cut falls: a start time stands last, and the sound goes on to the end."""
    made = windows(corpus, processor, replace(SHORT, cut=1.0))
    first_time = processor.tokenizer.convert_tokens_to_ids("<|0.00|>")
    ends = []
    for step in range(80):
        batch = made[step]
        for targets, phones in zip(batch["targets"].tolist(), batch["phones"].tolist(), strict=True):
            written = [target for target in targets if target != NO_TARGET]
            before_end = written[-2] - first_time - batch["offset"]
            if before_end >= 0:
                ends.append(sum(phones[before_end:]) > 0)

    assert len(ends) > 50
    assert all(ends)


def test_a_sentence_one_frame_too_long_is_cut_too(corpus: Corpus, processor: WhisperProcessor) -> None:
    """It does not reach the window's end. One cut in a hundred is such; thousands are tried."""
    made, rng = windows(corpus, processor, replace(SHORT, cut=1.0)), np.random.default_rng(1)
    cuts = [made._mixed(rng, 400)[3] for _ in range(3000)]

    assert sum(cut is not None for cut in cuts) > 500


def test_noises_are_equally_loud() -> None:
    noises, rng = Noises(seed=1), np.random.default_rng(1)
    levels = [noises.any(rng, 320_000, kind).std() for kind in range(8)]

    assert all(0.5 < level < 1.5 for level in levels)
