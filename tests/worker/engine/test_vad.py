"""Detection: speech is found, nothing else is, and the size of the blocks does not matter."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import silero_vad
import soundfile
import torch

from worker.engine.silero import Silero, SileroDetector, network_of
from worker.engine.spans import FRAME_SAMPLES, SpeechParams, SpeechTracker
from worker.engine.vad import SoundDetector, detector_for
from worker.engine.values import SAMPLE_RATE, Detector, Pcm, Span

SAMPLES = Path(__file__).parents[3] / "models" / "samples"
REFERENCES = json.loads((SAMPLES / "references.json").read_text())
BLOCK_SAMPLES = 30 * SAMPLE_RATE
SPEECH, SILENCE = 1.0, 0.0

NewDetector = Callable[[SpeechParams], Detector]


def sample(name: str) -> Pcm:
    pcm, rate = soundfile.read(SAMPLES / name, dtype="int16")
    assert rate == SAMPLE_RATE
    return np.asarray(pcm, np.int16)


def detect(detector: Detector, pcm: Pcm, block: int = BLOCK_SAMPLES) -> list[Span]:
    """All spans of a recording, pieces put together."""
    spans: list[Span] = []
    for begin in range(0, len(pcm), block):
        spans += detector.feed(pcm[begin : begin + block])
    return joined(spans + detector.feed(pcm[:0], last=True))


def joined(spans: list[Span]) -> list[Span]:
    whole: list[Span] = []
    for span in spans:
        if whole and whole[-1].end == span.start:
            whole[-1] = Span(whole[-1].start, span.end)
        else:
            whole.append(span)
    return whole


def mask(spans: list[Span], length: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    is_speech = np.zeros(length, bool)
    for span in spans:
        is_speech[span.start : span.end] = True
    return is_speech


def noise(amplitude: float) -> Pcm:
    return np.random.default_rng(0).normal(0, amplitude, 20 * SAMPLE_RATE).astype(np.int16)


def tones(*hertz: float, amplitude: float = 6000.0) -> Pcm:
    at = np.arange(20 * SAMPLE_RATE) / SAMPLE_RATE
    waves = np.sin(2 * np.pi * np.outer(hertz, at)) * amplitude
    return np.asarray(waves.sum(axis=0), np.int16)


def melody() -> Pcm:
    pitches = np.random.default_rng(0).choice([262, 294, 330, 349, 392, 440], 40)
    at = np.arange(SAMPLE_RATE // 2) / SAMPLE_RATE
    notes = [8000 * np.sin(2 * np.pi * pitch * at) * np.exp(-5 * at) for pitch in pitches]
    return np.concatenate(notes).astype(np.int16)


NOT_SPEECH = {
    "digital silence": noise(0),
    "faint noise": noise(20),
    "white noise": noise(3000),
    "mains hum": tones(50, 100, 150),
    "one tone": tones(440),
    "a chord": tones(261.6, 329.6, 392.0),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_nearly_all_speech_is_found(name: str) -> None:
    pcm = sample(name)
    found = mask(detect(SileroDetector(SpeechParams()), pcm), len(pcm))
    segments = [
        Span(round(segment["start"] * SAMPLE_RATE), round(segment["end"] * SAMPLE_RATE))
        for segment in REFERENCES[name]["segments"]
    ]
    spoken = mask(segments, len(pcm))

    assert found[spoken].mean() > 0.99


def test_long_silences_are_left_out() -> None:
    pcm = sample("long-silences.flac")
    spans = detect(SileroDetector(SpeechParams()), pcm)

    assert len(spans) == len(REFERENCES["long-silences.flac"]["segments"])
    assert mask(spans, len(pcm)).mean() < 0.5


@pytest.mark.parametrize("kind", NOT_SPEECH)
def test_what_is_no_speech_gives_no_spans(kind: str) -> None:
    assert detect(SileroDetector(SpeechParams()), NOT_SPEECH[kind]) == []


def test_the_network_knows_a_melody_from_a_voice() -> None:
    assert detect(SileroDetector(SpeechParams()), melody()) == []


@pytest.mark.parametrize("gain", [0.02, 0.2])
def test_faint_speech_is_speech(gain: float) -> None:
    quiet = (sample("short-1.flac") * gain).astype(np.int16)

    assert mask(detect(SileroDetector(SpeechParams()), quiet), len(quiet)).mean() > 0.8


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("new_detector", [SileroDetector, lambda _: SoundDetector()])
def test_the_size_of_the_blocks_does_not_matter(new_detector: NewDetector, seed: int) -> None:
    pcm = sample("long-silences.flac")
    detector = new_detector(SpeechParams())
    cuts = np.sort(np.random.default_rng(seed).integers(5 * SAMPLE_RATE, len(pcm), 20))
    pieces = [span for block in np.split(pcm, cuts) for span in detector.feed(block)]
    pieces += detector.feed(pcm[:0], last=True)

    whole = new_detector(SpeechParams())
    expected = joined(whole.feed(pcm[: cuts[0]]) + whole.feed(pcm[cuts[0] :], last=True))

    assert joined(pieces) == expected
    assert all(one.end <= other.start for one, other in pairwise(pieces))


def with_weights_of(reference: torch.nn.Module) -> Silero:
    """Our network with the weights of the package's TorchScript model."""
    given = {name: weight.numpy() for name, weight in reference.state_dict().items()}
    weights = {"stft_conv.weight": given["_model.stft.forward_basis_buffer"]}
    for part in ("weight", "bias"):
        weights[f"final_conv.{part}"] = given[f"_model.decoder.decoder.2.{part}"]
        for layer in range(4):
            weights[f"conv{layer + 1}.{part}"] = given[f"_model.encoder.{layer}.reparam_conv.{part}"]
        for side in ("ih", "hh"):
            weights[f"lstm.{part}_{side}"] = given[f"_model.decoder.rnn.{part}_{side}"]
    return network_of(weights)


@pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated:DeprecationWarning")
def test_the_network_computes_what_the_reference_computes() -> None:
    """The package's two sets of weights differ, so both networks get the same one."""
    pcm = sample("minute.flac")[: 20 * SAMPLE_RATE]
    frames = pcm[: len(pcm) // FRAME_SAMPLES * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES)
    reference = silero_vad.load_silero_vad()
    sound = torch.from_numpy(frames.astype(np.float32) / 32_768)
    with torch.inference_mode():
        expected = [reference(frame, SAMPLE_RATE).item() for frame in sound]

    detector = SileroDetector(SpeechParams(), with_weights_of(reference))
    scores = np.concatenate([detector.score(part) for part in np.array_split(frames, 3)])

    assert np.ptp(expected) > 0.9
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-3)


def test_frames_are_heard_alike_at_once_and_one_by_one() -> None:
    """What a frame is heard with, the end of the one before it and the memory of all, is carried on."""
    pcm = sample("short-1.flac")
    frames = pcm[: len(pcm) // FRAME_SAMPLES * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES)
    whole, pieces = SileroDetector(SpeechParams()), SileroDetector(SpeechParams())

    one_by_one = np.concatenate([pieces.score(frame[None]) for frame in frames])

    np.testing.assert_allclose(one_by_one, whole.score(frames), rtol=0, atol=1e-5)


def track(params: SpeechParams, scores: list[float]) -> list[Span]:
    tracker = SpeechTracker(params)
    for score in scores:
        tracker.hear(score)
    return tracker.settle(len(scores) * FRAME_SAMPLES)


def seconds(value: float) -> int:
    """Frames."""
    return round(value * SAMPLE_RATE / FRAME_SAMPLES)


def test_short_gaps_do_not_split_and_long_ones_do() -> None:
    params = SpeechParams(min_silence_s=0.5, pad_s=0.1)
    speech = [SPEECH] * seconds(1)

    assert len(track(params, speech + [SILENCE] * seconds(0.4) + speech)) == 1
    assert len(track(params, speech + [SILENCE] * seconds(0.6) + speech)) == 2


def test_a_click_is_no_speech() -> None:
    silence = [SILENCE] * seconds(1)

    assert track(SpeechParams(min_speech_s=0.1), [*silence, SPEECH, *silence]) == []
    assert len(track(SpeechParams(min_speech_s=0.0), [*silence, SPEECH, *silence])) == 1


def test_spans_are_padded_within_the_file() -> None:
    params = SpeechParams(pad_s=0.3)
    pad = round(0.3 * SAMPLE_RATE)
    lead, speech = seconds(1), seconds(1)
    scores = [SILENCE] * lead + [SPEECH] * speech + [SILENCE] * seconds(1)

    assert track(params, scores) == [Span(lead * FRAME_SAMPLES - pad, (lead + speech) * FRAME_SAMPLES + pad)]
    assert track(params, [SPEECH] * speech) == [Span(0, speech * FRAME_SAMPLES)]


def test_speech_lasts_until_the_score_is_well_below_the_threshold() -> None:
    params = SpeechParams(threshold=0.5, min_silence_s=0.1, pad_s=0.0)
    speech, doubt = [SPEECH] * seconds(1), [0.4] * seconds(1)

    assert len(track(params, speech + doubt + speech)) == 1
    assert track(params, doubt) == []


def test_speech_without_end_is_handed_out_in_pieces() -> None:
    tracker = SpeechTracker(SpeechParams())
    pieces = []
    for _ in range(10):
        for _ in range(seconds(10)):
            tracker.hear(SPEECH)
        pieces += tracker.settle(None)

    assert len(pieces) == 10
    assert joined(pieces) == [Span(0, 10 * seconds(10) * FRAME_SAMPLES)]


def test_without_detection_only_long_digital_silence_is_left_out() -> None:
    hush = np.zeros(5 * SAMPLE_RATE, np.int16)
    short = np.zeros(SAMPLE_RATE, np.int16)
    hum = tones(50)

    assert detect(detector_for(False, SpeechParams()), hush) == []
    assert detect(detector_for(False, SpeechParams()), np.concatenate([hum, short, hum])) == [
        Span(0, 41 * SAMPLE_RATE)
    ]
    assert len(detect(detector_for(False, SpeechParams()), np.concatenate([hum, hush, hum]))) == 2


def test_nothing_gives_nothing() -> None:
    for detector in (SileroDetector(SpeechParams()), SoundDetector()):
        assert detector.feed(np.zeros(0, np.int16)) == []
        assert detector.feed(np.zeros(0, np.int16), last=True) == []


def test_a_recording_shorter_than_a_frame_can_be_fed() -> None:
    for detector in (SileroDetector(SpeechParams()), SoundDetector()):
        spans = detector.feed(np.full(100, 5000, np.int16), last=True)
        assert all(span.end <= 100 for span in spans)
