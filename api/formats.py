"""A transcript as text, subtitles and tables. Pure functions: no files, no requests.

Times are rounded to the millisecond; the text is what the transcript holds, made harmless for its format.
"""

import csv
import io
import re
from collections.abc import Callable, Iterable

from shared.transcript import Segment, Transcript

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
_ARROW = re.compile(r"-{2,}>")
_BREAKS = re.compile(r"[\r\n\v\f\x1c-\x1e\x85\u2028\u2029\t]+")
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
_VTT_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def to_text(transcript: Transcript) -> str:
    """One segment a line."""
    return "".join(f"{_one_line(segment.text)}\n" for segment in _spoken(transcript))


def to_srt(transcript: Transcript) -> str:
    return "\n".join(
        f"{number}\n{srt_time(segment.start)} --> {srt_time(_cue_end(segment))}\n{_cue_text(segment.text)}\n"
        for number, segment in enumerate(_spoken(transcript), 1)
    )


def to_vtt(transcript: Transcript) -> str:
    cues = (
        f"\n{vtt_time(segment.start)} --> {vtt_time(_cue_end(segment))}\n"
        f"{_cue_text(segment.text).translate(_VTT_ESCAPES)}\n"
        for segment in _spoken(transcript)
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


WRITERS: dict[str, Callable[[Transcript], str]] = {
    "text": to_text,
    "srt": to_srt,
    "vtt": to_vtt,
    "tsv": to_tsv,
    "csv": to_csv,
}


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


def _cue_end(segment: Segment) -> float:
    """A cue must last: players drop one that ends where it starts."""
    return max(segment.end, segment.start + 0.001)


def _one_line(text: str) -> str:
    return _CONTROLS.sub("", _BREAKS.sub(" ", text)).strip()


def _cue_text(text: str) -> str:
    """A blank line or an arrow in the text would end the cue or begin another."""
    return _ARROW.sub("->", _one_line(text))
