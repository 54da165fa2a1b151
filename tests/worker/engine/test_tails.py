from collections.abc import Sequence

import numpy as np

from shared.transcript import Word
from worker.engine.tails import with_tails
from worker.engine.values import SAMPLE_RATE, DecodingOptions, Hypothesis, Utterance, Window

TIMESTAMPS = range(1000, 2501)


def window(seconds: float) -> Window:
    return Window(0, 0.0, np.zeros(int(seconds * SAMPLE_RATE), np.int16), seconds, DecodingOptions())


def hypothesis(text: str, end: float, tokens: tuple[int, ...], ratio: float = 1.0) -> Hypothesis:
    spoken = Utterance(0.0, end, text, (1,), -0.1, (Word(0.0, end, text, 0.9),))
    return Hypothesis((spoken,) if text else (), "en", None, -0.1, ratio, 0.0, 0.0, tokens)


def at(seconds: float) -> int:
    return TIMESTAMPS.start + round(seconds / 0.02)


def test_rest_is_heard_and_shifted() -> None:
    heard: list[float] = []

    def transcribe(rest: Sequence[Window]) -> list[Hypothesis]:
        heard.extend(tail.duration_s for tail in rest)
        return [hypothesis(" rest", 1.5, (at(0), 1, at(1.5)), ratio=3.0) for _ in rest]

    whole, broken = with_tails(
        [window(6), window(8)],
        [hypothesis(" whole", 6, (at(0), 1, at(6))), hypothesis(" head", 4, (at(0), 1, at(4), at(5)))],
        transcribe,
        TIMESTAMPS,
    )

    assert heard == [3.0]
    assert whole.text == "whole"
    assert broken.text == "head rest"
    assert (broken.utterances[1].start, broken.utterances[1].end) == (5.0, 6.5)
    assert broken.utterances[1].words == (Word(5.0, 6.5, " rest", 0.9),)
    assert broken.compression_ratio == 3.0


def test_model_that_always_breaks_off_comes_to_an_end() -> None:
    rounds: list[int] = []

    def transcribe(rest: Sequence[Window]) -> list[Hypothesis]:
        rounds.append(len(rest))
        return [hypothesis(" more", 1, (at(0), 1, at(1), at(1))) for _ in rest]

    (found,) = with_tails(
        [window(5)], [hypothesis(" first", 1, (at(0), 1, at(1), at(1)))], transcribe, TIMESTAMPS
    )

    assert rounds == [1, 1, 1, 1]
    assert [spoken.start for spoken in found.utterances] == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_short_rest_and_silence_are_left_alone() -> None:
    heads = [
        hypothesis(" head", 4, (at(0), 1, at(4), at(4.5))),
        hypothesis("", 0, (at(0), 1, at(2), at(2))),
        hypothesis(" head", 4, (at(0), 1, at(0.4), at(0.4))),
    ]

    assert with_tails([window(5)] * 3, heads, lambda _rest: [], TIMESTAMPS) == heads
