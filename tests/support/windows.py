"""Windows of a real recording, with options of all kinds side by side."""

import numpy as np
import soundfile

from tests.support.service import SAMPLES
from worker.engine.values import SAMPLE_RATE, DecodingOptions, Pcm, Window

LANGUAGES = ("en", "fr", "yo", "de")
TASKS = ("transcribe", "translate")
PROMPTS = (None, "A lake.", "Once upon a time there was a king who had a very long name indeed.")


def sound(number: int) -> Pcm:
    pcm, _ = soundfile.read(SAMPLES / "minute.flac", dtype="int16")
    first = number * SAMPLE_RATE
    return np.asarray(pcm[first : first + (1 + number % 6) * SAMPLE_RATE], dtype=np.int16)


def mixed(count: int) -> list[Window]:
    """Of all languages, tasks, prompts and lengths."""
    windows = []
    for number in range(count):
        options = DecodingOptions(
            language=LANGUAGES[number % len(LANGUAGES)],
            task=TASKS[number // 2 % len(TASKS)],
            prompt=PROMPTS[number % len(PROMPTS)],
            temperatures=(0.0,),
        )
        pcm = sound(number)
        windows.append(Window(number, 0.0, pcm, len(pcm) / SAMPLE_RATE, options))
    return windows
