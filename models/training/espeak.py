"""espeak-ng, called as a library: it tells of every word and phone while it speaks."""

import ctypes
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.training.synthesis import PHONES, Misread, Said, Span, Voice, library

_PHONES = {
    "aI": "ay", "aI2": "ay", "aI3": "ay", "aI@": "ay", "aU": "aw", "aU@": "aw", "eI": "ey", "oI": "oy",
    "OI": "oy", "oU": "ow", "@U": "ow", "e:": "ey", "o:": "ow", "a": "ae", "aa": "ae", "a2": "ae", "a:": "aa",
    "A:": "aa", "A": "aa", "0": "aa", "A@": "aa", "0#": "aa", "O": "ao", "O2": "aa", "O:": "ao", "O@": "ao",
    "o@": "ao", "V": "ah", "V3": "ah", "E": "eh", "E2": "eh", "e@": "eh", "i@": "ih", "i@3": "ih", "I": "ih",
    "I2": "ih", "I#": "ih", "i": "iy", "i:": "iy", "U": "uh", "U@": "uh", "u:": "uw", "u": "uw", "3:": "er",
    "3": "er", "VR": "er", "IR": "er", "@": "ax", "@2": "ax", "@5": "ax", "@-": "ax", "a#": "ax", "@L": "l",
    "tS": "ch", "dZ": "jh", "D": "dh", "d#": "d", "h": "hh", "j": "y", "k#": "k", "x": "k", "l/": "l",
    "l/2": "l", "l-": "l", "N": "ng", "n-": "n", "r-": "r", "r/": "r", "S": "sh", "s#": "s", "T": "th",
    "t#": "t", "t2": "t", "t[": "t", "?": "t", "w#": "w", "Z": "zh", "z#": "z",
}  # fmt: skip
_SILENT = "_;"
"""Pauses, and marks without sound."""


class _Event(ctypes.Structure):
    """espeak_EVENT of speak_lib.h."""

    class Id(ctypes.Union):
        _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", Id),
    )


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)
# From speak_lib.h.
_WORD, _PHONE = 1, 7
_SYNCHRONOUS, _WITH_PHONE_EVENTS = 2, 1
_RATE, _PITCH, _RANGE = 1, 3, 4
_BY_CHARACTER, _UTF8 = 1, 1


@dataclass(frozen=True, slots=True)
class _Mark:
    """A word begins, at a character of the text (from 1), or a phone."""

    at_s: float
    character: int
    phone: str | None


class Espeak:
    """One in a process: the library has one state."""

    def __init__(self) -> None:
        self._library = library("libespeak-ng.so.1", "espeak-ng")
        self._rate = int(self._library.espeak_Initialize(_SYNCHRONOUS, 0, None, _WITH_PHONE_EVENTS))
        self._chunks: list[NDArray[np.int16]] = []
        self._marks: list[_Mark] = []
        self._callback = _Callback(self._take)
        self._library.espeak_SetSynthCallback(self._callback)
        self._voice = ""

    def say(self, text: str, voice: Voice) -> Said:
        """Raises Misread."""
        self._be(voice)
        self._chunks.clear()
        self._marks.clear()
        encoded = text.encode()
        self._library.espeak_Synth(encoded, len(encoded) + 1, 0, _BY_CHARACTER, 0, _UTF8, None, None)
        samples = np.concatenate([*self._chunks, np.zeros(0, np.int16)])
        phones = _phones([mark for mark in self._marks if mark.phone is not None], len(samples) / self._rate)
        words = _words(text, [mark for mark in self._marks if mark.phone is None], phones)
        return Said(samples, self._rate, phones, words)

    def _be(self, voice: Voice) -> None:
        if voice.name != self._voice and self._library.espeak_SetVoiceByName(voice.name.encode()):
            raise Misread(f"espeak-ng has no voice {voice.name}.")
        self._voice = voice.name
        for parameter, setting in ((_RATE, int(voice.speed)), (_PITCH, voice.pitch), (_RANGE, voice.range)):
            self._library.espeak_SetParameter(parameter, setting, 0)

    def _take(self, samples: Any, count: int, events: Any) -> int:
        if count > 0:
            self._chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        index = 0
        while events[index].type:
            event = events[index]
            if event.type in (_WORD, _PHONE):
                phone = event.id.string.decode() if event.type == _PHONE else None
                self._marks.append(_Mark(event.sample / self._rate, event.text_position, phone))
            index += 1
        return 0


def _phones(marks: list[_Mark], end_s: float) -> list[tuple[float, float, str]]:
    phones = []
    ends = [mark.at_s for mark in marks[1:]] + [end_s]
    for mark, end in zip(marks, ends, strict=True):
        name = mark.phone or _SILENT
        if name[0] in _SILENT:
            continue
        phone = name if name in PHONES else _PHONES.get(name)
        if phone is None:
            raise Misread(f"espeak-ng's phone {name!r} has no place in the table.")
        phones.append((mark.at_s, end, phone))
    return phones


def _words(text: str, marks: list[_Mark], phones: list[tuple[float, float, str]]) -> list[Span]:
    """Some small words are spoken as one ("on the"), and only the first of them is told of: they share its
    time by their letters."""
    words = text.split()
    first_at = _first_times(text, words, marks)
    if not first_at or not phones:
        raise Misread(f"espeak-ng named no word of {text!r}.")
    first_at.setdefault(0, phones[0][0])
    told = [*sorted(first_at), len(words)]
    spans: list[Span] = []
    for word, following in pairwise(told):
        begin, limit = first_at[word], first_at.get(following, phones[-1][1])
        inside = [phone for phone in phones if begin - 1e-6 <= phone[0] < limit - 1e-6]
        begin, end = (inside[0][0], inside[-1][1]) if inside else (begin, limit)
        spans += _shared(words[word:following], begin, end)
    return spans


def _first_times(text: str, words: list[str], marks: list[_Mark]) -> dict[int, float]:
    """By number of the word, the first time it is told of."""
    starts, position = [], 0
    for word in words:
        position = text.index(word, position)
        starts.append(position)
        position += len(word)
    first_at: dict[int, float] = {}
    for mark in marks:
        number = max((i for i, start in enumerate(starts) if start < mark.character), default=0)
        first_at.setdefault(number, mark.at_s)
    return first_at


def _shared(words: list[str], begin: float, end: float) -> list[Span]:
    edges = np.cumsum([0, *map(len, words)]) / sum(map(len, words))
    times = [float(begin + (end - begin) * edge) for edge in edges]
    return list(pairwise(times))
