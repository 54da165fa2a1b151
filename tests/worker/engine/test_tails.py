import numpy as np

from shared.transcript import Word
from worker.engine.tails import joined, rest
from worker.engine.values import SAMPLE_RATE, DecodingOptions, Hypothesis, Utterance, Window

TIMESTAMPS = range(1000, 2501)


def window(seconds: float) -> Window:
    return Window(0, 0.0, np.zeros(int(seconds * SAMPLE_RATE), np.int16), seconds, DecodingOptions())


def hypothesis(text: str, end: float, tokens: tuple[int, ...], ratio: float = 1.0) -> Hypothesis:
    spoken = Utterance(0.0, end, text, (1,), -0.1, (Word(0.0, end, text, 0.9),))
    return Hypothesis((spoken,) if text else (), "en", None, -0.1, ratio, 0.0, 0.0, tokens)


def at(seconds: float) -> int:
    return TIMESTAMPS.start + round(seconds / 0.02)


def test_rest_is_what_the_model_announced_and_did_not_write() -> None:
    whole = hypothesis(" whole", 6, (at(0), 1, at(6)))
    broken = hypothesis(" head", 4, (at(0), 1, at(4), at(5)))

    tail = rest(window(8), broken, TIMESTAMPS)

    assert rest(window(6), whole, TIMESTAMPS) is None
    assert tail is not None
    assert tail.duration_s == 3.0


def test_rest_is_shifted_to_its_place() -> None:
    head = hypothesis(" head", 4, (at(0), 1, at(4), at(5)))
    tail = hypothesis(" rest", 1.5, (at(0), 1, at(1.5)), ratio=3.0)

    found = joined([(window(8), head), (window(3), tail)])

    assert found.text == "head rest"
    assert (found.utterances[1].start, found.utterances[1].end) == (5.0, 6.5)
    assert found.utterances[1].words == (Word(5.0, 6.5, " rest", 0.9),)
    assert found.compression_ratio == 3.0


def test_one_part_is_itself() -> None:
    whole = hypothesis(" whole", 6, (at(0), 1, at(6)))

    assert joined([(window(6), whole)]) is whole


def test_model_that_always_breaks_off_comes_to_an_end() -> None:
    parts = []
    tail: Window | None = window(5)
    while tail is not None:
        parts.append((tail, hypothesis(" more", 1, (at(0), 1, at(1), at(1)))))
        tail = rest(*parts[-1], TIMESTAMPS)

    assert [part.duration_s for part, _ in parts] == [5.0, 4.0, 3.0, 2.0, 1.0][: len(parts)]
    assert len(parts) == 5
    assert [spoken.start for spoken in joined(parts).utterances] == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_short_rest_and_silence_are_left_alone() -> None:
    heads = [
        hypothesis(" head", 4, (at(0), 1, at(4), at(4.5))),
        hypothesis("", 0, (at(0), 1, at(2), at(2))),
        hypothesis(" head", 4, (at(0), 1, at(0.4), at(0.4))),
    ]

    assert [rest(window(5), head, TIMESTAMPS) for head in heads] == [None] * 3
