"""A transcript as text, subtitles and tables. Pure functions: no files, no requests.

Times are rounded to the millisecond; the text is what the transcript holds, made harmless for its format.
"""

import csv
import io
import re
from collections.abc import Callable, Iterable
from dataclasses import replace

from api.subtitles import Cue, Shaping, cues_of
from shared.transcript import Segment, Transcript, joined

AS_IT_COMES = Shaping()
"""One cue for each segment."""

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
_ARROW = re.compile(r"-{2,}>")
_BREAKS = re.compile(r"[\r\n\v\f\x1c-\x1e\x85\u2028\u2029\t]+")
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
_VTT_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def to_text(transcript: Transcript) -> str:
    """One segment a line."""
    return "".join(f"{_one_line(segment.text)}\n" for segment in _spoken(transcript))


def to_srt(transcript: Transcript, shaping: Shaping = AS_IT_COMES) -> str:
    return "\n".join(
        f"{number}\n{srt_time(cue.start)} --> {srt_time(cue.end)}\n{cue.text}\n"
        for number, cue in enumerate(_cues(transcript, shaping), 1)
    )


def to_vtt(transcript: Transcript, shaping: Shaping = AS_IT_COMES, *, word_cues: bool = False) -> str:
    """With `word_cues` each word has the time from which it is said, as karaoke players show it."""
    write = _timed_lines if word_cues else _escaped_lines
    cues = (
        f"\n{vtt_time(cue.start)} --> {vtt_time(cue.end)}\n{write(cue)}\n"
        for cue in _cues(transcript, shaping)
    )
    return "WEBVTT\n" + "".join(cues)


def to_tsv(transcript: Transcript) -> str:
    """start and end in milliseconds, text; nothing is quoted, so text holds no tabs and no line breaks."""
    rows = (
        f"{milliseconds(segment.start)}\t{milliseconds(segment.end)}\t{_one_line(segment.text)}\n"
        for segment in _spoken(transcript)
    )
    return "start\tend\ttext\n" + "".join(rows)


def to_csv(transcript: Transcript, *, guard_formulas: bool = False) -> str:
    """start and end in milliseconds, text, by RFC 4180.

    `guard_formulas` changes text that a spreadsheet would run as a formula, by an apostrophe before it.
    """
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\r\n")
    rows.writerow(("start", "end", "text"))
    for segment in _spoken(transcript):
        text = _one_line(segment.text)
        guarded = f"'{text}" if guard_formulas and text.startswith(_FORMULA_STARTS) else text
        rows.writerow((milliseconds(segment.start), milliseconds(segment.end), guarded))
    return out.getvalue()


TABLES: dict[str, Callable[[Transcript], str]] = {"text": to_text, "tsv": to_tsv}


def milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def srt_time(seconds: float) -> str:
    return vtt_time(seconds).replace(".", ",")


def vtt_time(seconds: float) -> str:
    """HH:MM:SS.mmm; hours grow beyond two digits when they must."""
    rest, thousandths = divmod(milliseconds(seconds), 1000)
    minutes, whole_seconds = divmod(rest, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{whole_seconds:02d}.{thousandths:03d}"


def _spoken(transcript: Transcript) -> Iterable[Segment]:
    return (segment for segment in transcript.segments if _one_line(segment.text))


def _cues(transcript: Transcript, shaping: Shaping) -> list[Cue]:
    """Of harmless text only, so that nothing is left to be changed in the lines."""
    segments = tuple(replace(segment, text=_cue_text(segment.text)) for segment in _spoken(transcript))
    return cues_of(replace(transcript, segments=segments), shaping)


def _escaped_lines(cue: Cue) -> str:
    return cue.text.translate(_VTT_ESCAPES)


def _timed_lines(cue: Cue) -> str:
    """A time must lie inside its cue and after the one before: others are left out."""
    told = milliseconds(cue.start)
    lines = []
    for line in cue.lines:
        text = ""
        for at, atom in enumerate(line):
            starts = milliseconds(atom.start)
            stamp = f"<{vtt_time(atom.start)}>" if told < starts < milliseconds(cue.end) else ""
            told = starts if stamp else told
            text += (atom.space if at else "") + stamp + atom.text.translate(_VTT_ESCAPES)
        lines.append(text)
    return "\n".join(lines)


def _one_line(text: str) -> str:
    return joined(_BREAKS.split(_CONTROLS.sub("", text)))


def _cue_text(text: str) -> str:
    """A blank line or an arrow in the text would end the cue or begin another."""
    return _ARROW.sub("->", _one_line(text))
