"""The comparison as tables for people and as JSON."""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass

from benchmarks.bento.figures import Figures, median, together

Key = tuple[str, str]
"""A side, and how its clients ask or what of it is killed."""
Rows = Iterable[Sequence[str]]

SPEED = (
    "Of the recordings that got a transcript; latency from a client's first send to its transcript. Audio past "
    "30 s that a side does not listen to is not counted as heard."
)
RATIOS = "Ours divided by theirs: above 1 is better in the rates, below 1 in the latencies."
HEARD = (
    "Of the words said in the recordings that got a transcript: wrong is the word error rate, missing its part "
    "that was left out. Up to 30 s, and longer."
)
KILLS = (
    "When a fifth of the recordings have their transcripts; ten clients at most, so the seed refuses none."
)
NO_AUDIO = "To `POST /transcribe`."

RATES: tuple[Callable[[Figures], float], ...] = (lambda one: one.files_per_s, lambda one: one.audio_per_s)
LATENCIES: tuple[Callable[[Figures], float], ...] = (
    lambda one: one.p50_s,
    lambda one: one.p95_s,
    lambda one: one.longest_s,
)
WORDS: tuple[Callable[[Figures], float | None], ...] = (
    lambda one: one.short.error_rate if one.short else None,
    lambda one: one.short.missing if one.short else None,
    lambda one: one.long.error_rate if one.long else None,
    lambda one: one.long.missing if one.long else None,
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """`ours` is the key that the others are set against."""

    about: dict[str, str]
    ours: Key
    rounds: dict[Key, list[Figures]]
    killed: dict[Key, Figures]
    no_audio: dict[str, str]
    is_quick: bool

    def as_json(self) -> str:
        content = {
            "about": self.about,
            "quick": self.is_quick,
            "rounds": [
                {"side": side, "clients": clients, "rounds": [asdict(one) for one in rounds]}
                for (side, clients), rounds in self.rounds.items()
            ],
            "killed": [
                {"side": side, "what": what} | asdict(one) for (side, what), one in self.killed.items()
            ],
            "no_audio": self.no_audio,
        }
        return json.dumps(_without_nan(content), indent=1) + "\n"

    def as_text(self) -> str:
        note = ["A quick run: its sizes are no good for figures.", ""] if self.is_quick else []
        about = [f"- {name}: {value}." for name, value in self.about.items()]
        lines = [*note, *about]
        for title, words, rows in (
            ("Speed", SPEED, self._speed()),
            (f"{self.ours[0]} against the others", RATIOS, self._ratios()),
            ("What was heard", HEARD, self._heard()),
            ("kill -9 in the middle", KILLS, self._kills()),
            ("A file that is no audio", NO_AUDIO, [("Side", "Answer"), *self.no_audio.items()]),
        ):
            lines += ["", f"## {title}", words, *_table(rows)]
        return "\n".join([*lines, ""])

    def _speed(self) -> Rows:
        yield (
            "Side", "Clients", "Files/s", "Audio heard, s/s", "p50", "p95", "Longest", "Transcripts",
            "Failed, all rounds", "Asked again, all rounds", "Peak memory",
        )  # fmt: skip
        for key, rounds in self.rounds.items():
            yield (
                *key,
                f"{median(rounds, lambda one: one.files_per_s):.2f}",
                f"{median(rounds, lambda one: one.audio_per_s):.1f}",
                *(_seconds(median(rounds, latency)) for latency in LATENCIES),
                _share(sum(one.transcripts for one in rounds), sum(one.recordings for one in rounds)),
                _counts(together(one.failures for one in rounds)),
                _counts(together(one.refusals for one in rounds)),
                f"{median(rounds, lambda one: one.peak_bytes) / 1e6:.0f} MB",
            )

    def _ratios(self) -> Rows:
        yield "Against", "Clients", "Files/s", "Audio heard, s/s", "p50", "p95", "Longest"
        for key, rounds in self.rounds.items():
            if key != self.ours:
                yield (*key, *(_ratio(self.rounds[self.ours], rounds, of) for of in (*RATES, *LATENCIES)))

    def _heard(self) -> Rows:
        yield (
            "Side",
            "Clients",
            "Wrong, up to 30 s",
            "Missing, up to 30 s",
            "Wrong, longer",
            "Missing, longer",
        )
        for key, rounds in self.rounds.items():
            yield (*key, *(_percent(median(rounds, share)) for share in WORDS))

    def _kills(self) -> Rows:
        yield "Side", "Killed; clients", "Transcripts", "Lost", "Asked again", "All of it took"
        for key, one in self.killed.items():
            yield (
                *key,
                _share(one.transcripts, one.recordings),
                _counts(one.failures),
                _counts(one.refusals),
                f"{one.took_s:.0f} s",
            )


def _table(rows: Rows) -> Iterator[str]:
    header, *others = rows
    yield from ("", _line(header), _line(["---"] * len(header)), *map(_line, others))


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _seconds(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.1f} s"


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.1%}"


def _ratio(ours: Sequence[Figures], theirs: Sequence[Figures], of: Callable[[Figures], float]) -> str:
    value, other = median(ours, of), median(theirs, of)
    return f"× {value / other:.2f}" if other and not math.isnan(other) else "–"


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole}"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} × {kind}" for kind, count in sorted(counts.items())) or "0"


def _without_nan(value: object) -> object:
    """JSON has no such number."""
    if isinstance(value, dict):
        return {key: _without_nan(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value
