"""Speech for the recipe's tests: a handful of sentences, spoken once for all of them."""

import ctypes
import os
import random
from pathlib import Path

import pytest

from models.training import speech
from models.training.corpus import Corpus
from models.training.tokenizer import write_untrained

SENTENCES = [
    "I left my umbrella on the bus again.",
    "Where did you put the twenty-five red boxes?",
    "She hasn't called me since half past four.",
    "If it rains, we can stay at home and cook something.",
    "Nobody knows why the lights went out.",
    "Two of the windows are open, so it's cold in here.",
    "My brother has a small garden behind his house.",
    "Please tell him to bring the other key.",
]


@pytest.fixture(scope="session")
def synthesisers() -> None:
    """espeak-ng and flite; without them these tests skip, and on CI they fail."""
    for library in ("libespeak-ng.so.1", "libflite.so.1"):
        try:
            ctypes.CDLL(library)
        except OSError:
            (pytest.fail if os.environ.get("CI") else pytest.skip)(
                f"{library} is missing: install espeak-ng and flite"
            )


@pytest.fixture(scope="session")
def shards(synthesisers: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("speech")
    speech.write_shards(SENTENCES, folder, lambda rng: rng.choice(speech.SAMPLE_VOICES), seed=1, processes=1)
    return folder


@pytest.fixture
def corpus(shards: Path) -> Corpus:
    return Corpus([shards])


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint without weights, with a vocabulary of its own."""
    folder = tmp_path_factory.mktemp("untrained")
    rng = random.Random(3)
    words = [word for sentence in SENTENCES for word in sentence.split()]
    write_untrained([" ".join(rng.choices(words, k=8)) for _ in range(500)], folder)
    return folder
