"""What a model left over: it broke off with an opened timestamp, which says that more follows."""

from collections.abc import Sequence
from dataclasses import replace

from worker.engine.utterances import open_tail_s
from worker.engine.values import SAMPLE_RATE, Hypothesis, Utterance, Window

SHORTEST_TAIL_S = 1.0
"""Less than this after the model's last timestamp is the end of its last word, or breath."""


def joined(heard: Sequence[tuple[Window, Hypothesis]]) -> Hypothesis:
    """A window and its rests, each with what was made of it, as one."""
    (window, whole), *before = reversed(heard)
    for longer, head in before:
        whole = _joined(head, whole, longer.duration_s - window.duration_s)
        window = longer
    return whole


def rest(window: Window, head: Hypothesis, timestamps: range) -> Window | None:
    """What is still to be heard. This ends, because each rest is shorter by SHORTEST_TAIL_S at least."""
    cut_s = open_tail_s(head.tokens, timestamps)
    if cut_s is None or not head.utterances:
        return None
    if not SHORTEST_TAIL_S <= cut_s <= window.duration_s - SHORTEST_TAIL_S:
        return None
    return replace(window, pcm=window.pcm[int(cut_s * SAMPLE_RATE) :])


def _joined(head: Hypothesis, tail: Hypothesis, offset_s: float) -> Hypothesis:
    """The head's judgement stands for both, except that the worse of two loops counts."""
    return replace(
        head,
        utterances=(*head.utterances, *(_shifted(utterance, offset_s) for utterance in tail.utterances)),
        compression_ratio=max(head.compression_ratio, tail.compression_ratio),
        tokens=(*head.tokens, *tail.tokens),
    )


def _shifted(utterance: Utterance, offset_s: float) -> Utterance:
    words = utterance.words and tuple(
        replace(word, start=round(word.start + offset_s, 2), end=round(word.end + offset_s, 2))
        for word in utterance.words
    )
    return replace(
        utterance,
        start=round(utterance.start + offset_s, 2),
        end=round(utterance.end + offset_s, 2),
        words=words,
    )
