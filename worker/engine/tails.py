"""What a model left over: it broke off with an opened timestamp, which says that more follows."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from worker.engine.utterances import open_tail_s
from worker.engine.values import SAMPLE_RATE, Hypothesis, Utterance, Window

SHORTEST_TAIL_S = 1.0
"""Less than this after the model's last timestamp is the end of its last word, or breath."""

Transcribe = Callable[[Sequence[Window]], list[Hypothesis]]


def with_tails(
    batch: Sequence[Window], heads: Sequence[Hypothesis], transcribe: Transcribe, timestamps: range
) -> list[Hypothesis]:
    """Hears the rest of such windows on its own and adds it. This ends, because each round's windows are
    shorter by SHORTEST_TAIL_S at least."""
    tails = {
        row: tail
        for row, (window, head) in enumerate(zip(batch, heads, strict=True))
        if (tail := _tail(window, head, timestamps)) is not None
    }
    if not tails:
        return list(heads)
    rest = list(tails.values())
    ends = with_tails(rest, transcribe(rest), transcribe, timestamps)
    whole = list(heads)
    for (row, tail), end in zip(tails.items(), ends, strict=True):
        whole[row] = _joined(heads[row], end, batch[row].duration_s - tail.duration_s)
    return whole


def _tail(window: Window, head: Hypothesis, timestamps: range) -> Window | None:
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
