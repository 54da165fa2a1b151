"""Recordings made for tests: tones, in any container that PyAV writes."""

import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from worker.engine.values import SAMPLE_RATE

TONE_HZ = 440.0
CANARY_HZ = 1760.0
HALF_SCALE = 16_000.0

Sound = NDArray[np.int16]


def tone(
    seconds: float, rate: int = SAMPLE_RATE, hertz: float = TONE_HZ, amplitude: float = HALF_SCALE
) -> Sound:
    at = np.arange(round(seconds * rate)) / rate
    return (amplitude * np.sin(2 * np.pi * hertz * at)).astype(np.int16)


def write_wav(path: Path, *channels: Sound, rate: int = SAMPLE_RATE) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(channels))
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.stack(channels, axis=1).tobytes())
    return path


def encode(
    path: Path, container: str, codec: str, sound: Sound, rate: int, *, with_video: bool = False
) -> Path:
    with av.open(path, "w", format=container) as output:
        if with_video:
            picture = output.add_stream("mpeg4", rate=10)
            picture.width = picture.height = 64
            picture.pix_fmt = "yuv420p"
        stream = output.add_stream(codec, rate=rate, layout="mono")
        assert isinstance(stream, av.AudioStream)
        if codec == "wmav2":
            stream.bit_rate = 64_000
        if with_video:
            for _ in range(10 * len(sound) // rate):
                output.mux(picture.encode(av.VideoFrame(64, 64, "yuv420p")))
            output.mux(picture.encode(None))
        step = rate // 10
        for begin in range(0, len(sound), step):
            frame = av.AudioFrame.from_ndarray(sound[None, begin : begin + step], format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = rate, begin, Fraction(1, rate)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path
