"""What is sent in the comparison is known to the word, and the same every time."""

import io

import numpy as np
import pytest
import soundfile

from benchmarks.bento.recordings import LONGEST_S, SAMPLES, SHORTEST_S, SOURCE, Recording, recordings


@pytest.fixture(scope="module")
def made() -> list[Recording]:
    return recordings(50)


def test_the_same_bytes_every_time() -> None:
    assert recordings(8) == recordings(8)


def test_lengths_are_mixed_from_seconds_to_minutes(made: list[Recording]) -> None:
    seconds = sorted(recording.seconds for recording in made)

    assert abs(seconds[0] - SHORTEST_S) < 2
    assert abs(seconds[-1] - LONGEST_S) < 5
    assert sum(one <= 30 for one in seconds) > 20
    assert sum(one > 30 for one in seconds) > 20


def test_no_two_are_the_same_and_they_come_in_no_order(made: list[Recording]) -> None:
    assert len({recording.wav for recording in made}) == 50
    assert made != sorted(made, key=lambda recording: recording.seconds)


def test_each_is_a_stretch_of_the_sample_that_begins_and_ends_in_a_pause(made: list[Recording]) -> None:
    source, rate = soundfile.read(SAMPLES / SOURCE, dtype="int16")
    loudness = np.abs(source.astype(np.int32)).mean()

    for recording in made[:12]:
        sound, its_rate = soundfile.read(io.BytesIO(recording.wav), dtype="int16")
        assert its_rate == rate
        assert source.tobytes().find(sound.tobytes()) >= 0
        edges = np.concatenate([sound[: rate // 20], sound[-rate // 20 :]]).astype(np.int32)
        assert np.abs(edges).mean() < loudness / 4, recording.name


def test_a_second_of_it_holds_as_many_words_as_a_second_of_the_sample(made: list[Recording]) -> None:
    """Text and sound are of the same sentences."""
    words = sum(len(recording.text.split()) for recording in made)
    assert 2.2 < words / sum(recording.seconds for recording in made) < 2.5
