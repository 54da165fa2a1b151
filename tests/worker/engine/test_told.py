"""What a decoder that was taken over may make us believe: nothing but one of our codes and plain words."""

import json

import pytest

from shared.errors import CorruptAudio
from worker.engine import told
from worker.engine.decoder.sandbox import Guard

PROBE = {"container": "wav", "codec": "pcm_s16le", "duration_s": 1.5, "sample_rate": 16_000, "channels": 1}


def wire(told_by_child: object) -> bytes:
    return json.dumps(told_by_child).encode()


def test_an_honest_probe_is_taken() -> None:
    probe = told.probe(wire({**PROBE, "guards": ["system_calls"]}))

    assert probe == told.Probe("wav", "pcm_s16le", 1.5, 16_000, 1, (Guard.SYSTEM_CALLS,))


@pytest.mark.parametrize(
    "lie",
    [
        {"codec": "<script>"},
        {"codec": "/etc/passwd"},
        {"container": "wav\n"},
        {"container": "w" * 33},
        {"duration_s": -1.0},
        {"duration_s": float("inf")},
        {"channels": "many"},
        {"guards": ["moat"]},
    ],
)
def test_a_probe_that_cannot_be_is_not_taken(lie: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        told.probe(wire(PROBE | lie))


def test_a_failure_is_one_of_ours_with_a_sentence() -> None:
    failure = told.failure(wire({"code": "corrupt_audio", "detail": "The file is damaged."}))

    assert isinstance(failure, CorruptAudio)
    assert failure.detail == "The file is damaged."


@pytest.mark.parametrize(
    "lie",
    [
        {"code": "internal", "detail": "None of the codes of a decoder."},
        {"code": "corrupt_audio", "detail": "root:x:0:0:root:/root:/bin/bash"},
        {"code": "corrupt_audio", "detail": "x" * 161},
        {"code": "corrupt_audio", "detail": "two\nlines"},
        {"code": "corrupt_audio"},
        {},
        [],
        None,
    ],
)
def test_other_failures_are_not_taken(lie: object) -> None:
    with pytest.raises(ValueError, match=r"validation error|no such code"):
        told.failure(wire(lie))


@pytest.mark.parametrize("warnings", [["a/b"], ["w"] * 9, "words", [1]])
def test_warnings_are_few_and_plain(warnings: object) -> None:
    with pytest.raises(ValueError, match="validation error"):
        told.warnings(wire({"warnings": warnings}))


def test_what_is_no_json_is_not_taken() -> None:
    for read in (told.probe, told.warnings, told.failure):
        with pytest.raises(ValueError, match="Invalid JSON"):
            read(b"\xff\x00")
