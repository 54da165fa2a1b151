"""The bundled model keeps what its card says, on the samples and through the engine of the service."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from models.training.evaluate import Clip, long_file, not_speech, transcribe, wer
from models.training.speech import FRAMES_PER_S, RATE
from shared.models import ModelSource
from worker.engine.whisper import WhisperRunner, load_runner

MODELS = Path(__file__).parents[2] / "models"
BUNDLED = MODELS / "synthetic-en"
SAMPLES = MODELS / "samples"
MOST_BYTES = 25_000_000

pytestmark = [pytest.mark.model, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def runner() -> WhisperRunner:
    return load_runner(ModelSource("synthetic-en", str(BUNDLED)), device="cpu", dtype="auto", threads=1)


@pytest.fixture(scope="module")
def references() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((SAMPLES / "references.json").read_text())
    return loaded


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((BUNDLED / "figures.json").read_text())
    return loaded


def clip(name: str, reference: dict[str, Any]) -> Clip:
    sound, rate = soundfile.read(SAMPLES / name, dtype="float32")
    assert rate == RATE
    sentences = tuple((segment["start"], segment["end"]) for segment in reference["segments"])
    words = np.array([word for segment in reference["segments"] for word in segment["words"]])
    return Clip(sound, reference["text"], sentences, words)


def test_all_its_files_fit_in_25_megabytes() -> None:
    assert sum(path.stat().st_size for path in BUNDLED.iterdir()) <= MOST_BYTES


def test_the_card_is_made_of_the_figures(figures: dict[str, Any]) -> None:
    card = (BUNDLED / "README.md").read_text()

    for name in ("domain", "handwritten", "voices", "full_windows"):
        found = figures[name]
        assert f"| {found['generate_wer']:.1f} | {found['service_wer']:.1f} |" in card


@pytest.mark.parametrize("name", ["minute.flac", "long-silences.flac", "five-minutes.flac"])
def test_references_say_when_there_is_sound(references: dict[str, Any], name: str) -> None:
    """Between sentences the recording is silent; inside one it is not."""
    spoken = clip(name, references[name])
    frame = int(RATE / FRAMES_PER_S)
    loud = spoken.sound[: len(spoken.sound) // frame * frame].reshape(-1, frame).std(1) > 0.003
    edges = [0.0, *(edge for sentence in spoken.sentences for edge in sentence), references[name]["seconds"]]
    for silent_from, silent_to in zip(edges[::2], edges[1::2], strict=True):
        assert not loud[
            int((silent_from + 0.06) * FRAMES_PER_S) : int((silent_to - 0.06) * FRAMES_PER_S)
        ].any()
    for start, end in spoken.sentences:
        assert loud[int(start * FRAMES_PER_S) : int(end * FRAMES_PER_S)].mean() > 0.6


@pytest.mark.slow
@pytest.mark.calm
def test_every_recording_becomes_its_words_in_time(
    runner: WhisperRunner, references: dict[str, Any], figures: dict[str, Any]
) -> None:
    found = {name: long_file(runner, clip(name, reference)) for name, reference in references.items()}

    for name, figure in found.items():
        assert figure["segment_error_s"] <= 0.3, name
        assert figure["words_in_order"], name
        assert figure["word_error_s"] <= 0.2, name
    for name in ("minute.flac", "five-minutes.flac"):
        assert found[name]["service_wer"] <= 1.3 * figures["domain"]["service_wer"], name


@pytest.mark.slow
@pytest.mark.calm
def test_what_is_not_speech_gives_no_words(runner: WhisperRunner) -> None:
    assert {name: transcribe(runner, sound).text for name, sound in not_speech()} == {
        "silence": "",
        "white noise": "",
        "hum": "",
        "music": "",
    }


@pytest.mark.slow
@pytest.mark.calm
def test_a_window_of_thirty_seconds_is_as_good_as_its_sentences(
    runner: WhisperRunner, references: dict[str, Any]
) -> None:
    name = "minute.flac"
    spoken = clip(name, references[name])
    alone = [
        transcribe(runner, spoken.sound[int((start - 0.2) * RATE) : int((end + 0.2) * RATE)]).text
        for start, end in spoken.sentences
    ]
    together = transcribe(runner, spoken.sound).text

    assert wer([spoken.text], [together]) <= wer([spoken.text], [" ".join(alone)]) + 5
