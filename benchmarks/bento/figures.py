"""What the answers of a round amount to."""

import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import jiwer

from benchmarks.bento.clients import Answer, Round
from benchmarks.words import plain

WINDOW_S = 30.0


@dataclass(frozen=True, slots=True)
class Words:
    """Of the recordings of one length that got a transcript; shares are of the words said."""

    recordings: int
    error_rate: float
    missing: float


@dataclass(frozen=True, slots=True)
class Figures:
    """`audio_per_s` counts what of the transcribed recordings was listened to. Latency is of these, too, from
    a client's first send to its transcript. `short` are recordings of up to 30 s."""

    transcripts: int
    recordings: int
    took_s: float
    files_per_s: float
    audio_per_s: float
    p50_s: float
    p95_s: float
    longest_s: float
    failures: dict[str, int]
    refusals: dict[str, int]
    short: Words | None
    long: Words | None
    peak_bytes: int

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def figures(done: Round, hears_s: float, peak_bytes: int) -> Figures:
    """`hears_s` is how much of a recording the server listens to."""
    good = [answer for answer in done.answers if answer.reply.text is not None]
    took = [answer.took_s for answer in good]
    return Figures(
        transcripts=len(good),
        recordings=len(done.answers),
        took_s=done.took_s,
        files_per_s=len(good) / done.took_s,
        audio_per_s=sum(min(answer.recording.seconds, hears_s) for answer in good) / done.took_s,
        p50_s=percentile(took, 50),
        p95_s=percentile(took, 95),
        longest_s=percentile(took, 100),
        failures=dict(Counter(answer.reply.failure for answer in done.answers if answer.reply.text is None)),
        refusals=dict(Counter(refusal for answer in done.answers for refusal in answer.refused)),
        short=words([answer for answer in good if answer.recording.seconds <= WINDOW_S]),
        long=words([answer for answer in good if answer.recording.seconds > WINDOW_S]),
        peak_bytes=peak_bytes,
    )


def words(answers: Sequence[Answer]) -> Words | None:
    if not answers:
        return None
    found = jiwer.process_words(
        [plain(answer.recording.text) for answer in answers],
        [plain(answer.reply.text or "") or "-" for answer in answers],
    )
    said = found.hits + found.substitutions + found.deletions
    return Words(len(answers), found.wer, found.deletions / said)


def percentile(values: Sequence[float], percent: float) -> float:
    """The least of the values that so many percent do not exceed; NaN of none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)] if ordered else math.nan


def median(rounds: Sequence[Figures], of: Callable[[Figures], float | None]) -> float:
    """Of the rounds that have such a figure; NaN where none has."""
    found = [value for one in rounds if (value := of(one)) is not None and not math.isnan(value)]
    return statistics.median(found) if found else math.nan


def together(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    return dict(sum((Counter(one) for one in counts), Counter()))
