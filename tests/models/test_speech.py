"""What the synthesisers tell of their words and phones, and the shards that keep it."""

import json
import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from models.training import speech
from models.training.corpus import Corpus
from models.training.speech import EDGE_S, FRAME, RATE, SAMPLE_VOICES, speak
from models.training.synthesis import PHONES, Misread, Voice, library

pytestmark = pytest.mark.usefixtures("synthesisers")

SENTENCE = "I left my umbrella on the bus again."
UNHEARD = ("awb", "m5", "f3")


@pytest.mark.parametrize("voice", SAMPLE_VOICES, ids=lambda voice: voice.name)
def test_every_word_has_its_time(voice: Voice) -> None:
    utterance = speak(SENTENCE, voice)
    starts, ends = zip(*utterance.words, strict=True)

    assert len(starts) == len(SENTENCE.split())
    assert 0 <= starts[0] <= EDGE_S + 0.02
    assert all(start < end for start, end in utterance.words)
    assert all(following >= end - 0.02 for end, following in pairwise(ends))
    assert ends[-1] == pytest.approx(len(utterance.samples) / RATE - EDGE_S, abs=0.05)


@pytest.mark.parametrize("voice", SAMPLE_VOICES, ids=lambda voice: voice.name)
def test_a_word_lies_where_it_sounds(voice: Voice) -> None:
    """The pause that a comma makes is silent, and the words around it are not."""
    utterance = speak("When we arrived, nobody was there.", voice)
    pause = utterance.samples[int(utterance.words[2][1] * RATE) : int(utterance.words[3][0] * RATE)]
    word = utterance.samples[int(utterance.words[2][0] * RATE) : int(utterance.words[2][1] * RATE)]
    middle = pause[len(pause) // 4 : -len(pause) // 4].astype(float)

    assert len(pause) > 0.05 * RATE
    assert np.sqrt((middle**2).mean()) < 0.2 * np.sqrt((word.astype(float) ** 2).mean())


@pytest.mark.parametrize("voice", SAMPLE_VOICES, ids=lambda voice: voice.name)
def test_phones_are_the_words_phones(voice: Voice) -> None:
    utterance = speak("Seven sheep.", voice)
    said = [PHONES[phone] for phone, following in pairwise([*utterance.phones, 0]) if phone != following]

    assert [phone for phone in said if phone not in ("pau", "ax", "ih")] == [
        "s",
        "eh",
        "v",
        "n",
        "sh",
        "iy",
        "p",
    ]
    assert len(utterance.phones) * FRAME == len(utterance.samples)


def test_the_unheard_voices_are_never_learned_from() -> None:
    rng = random.Random(2)
    known = {speech.any_voice(rng).name for _ in range(3000)}
    unheard = {speech.unheard_voice(rng).name for _ in range(300)}

    assert not any(name.endswith(UNHEARD) for name in known)
    assert all(name.endswith(UNHEARD) for name in unheard)


def test_a_sentence_that_takes_too_long_is_refused() -> None:
    with pytest.raises(Misread, match=r"takes \d\d\.\d s"):
        speak(" ".join([SENTENCE] * 8), SAMPLE_VOICES[0])


def test_a_missing_synthesiser_is_one_sentence() -> None:
    with pytest.raises(
        SystemExit,
        match=r"libnobody.so is missing: install nobody \(Debian and Ubuntu: apt install nobody\).",
    ):
        library("libnobody.so", "nobody")


def test_shards_give_back_what_was_said(shards: Path, corpus: Corpus) -> None:
    utterances = json.loads((shards / "0000.json").read_text())
    samples, phones, words = corpus.sound(3)
    again = next(speak(corpus.text(3), voice) for voice in SAMPLE_VOICES if voice.name == corpus.voice(3))

    assert len(corpus) == len(utterances)
    # flite shakes its samples a little, each time in another way.
    assert np.corrcoef(samples, again.samples)[0, 1] > 0.98
    assert np.array_equal(phones, again.phones)
    assert words.tolist() == [list(span) for span in again.words]


def test_shards_that_are_there_stay(shards: Path) -> None:
    before = (shards / "0000.json").stat().st_mtime_ns
    speech.write_shards(["Not said again."], shards, speech.any_voice, seed=1, processes=1)

    assert (shards / "0000.json").stat().st_mtime_ns == before
