"""flite, called as a library: the finished utterance has the end of every phone and the word it is in."""

import ctypes
from functools import cache

import numpy as np

from models.training.synthesis import Misread, Said, Span, Voice, library

_FUNCTIONS = {
    "flite_synth_text": (ctypes.c_void_p, [ctypes.c_char_p, ctypes.c_void_p]),
    "utt_relation": (ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_char_p]),
    "relation_head": (ctypes.c_void_p, [ctypes.c_void_p]),
    "item_next": (ctypes.c_void_p, [ctypes.c_void_p]),
    "item_feat_string": (ctypes.c_char_p, [ctypes.c_void_p, ctypes.c_char_p]),
    "item_feat_float": (ctypes.c_float, [ctypes.c_void_p, ctypes.c_char_p]),
    "path_to_item": (ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_char_p]),
    "delete_utterance": (None, [ctypes.c_void_p]),
    "feat_set_float": (None, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_float]),
}
_TOKEN_OF_SEGMENT = b"R:SylStructure.parent.parent.R:Token.parent"


class _Wave(ctypes.Structure):
    """cst_wave of cst_wave.h."""

    _fields_ = (
        ("type", ctypes.c_char_p),
        ("sample_rate", ctypes.c_int),
        ("num_samples", ctypes.c_int),
        ("num_channels", ctypes.c_int),
        ("samples", ctypes.POINTER(ctypes.c_short)),
    )


class _Voice(ctypes.Structure):
    """The beginning of cst_voice of cst_voice.h."""

    _fields_ = (("name", ctypes.c_char_p), ("features", ctypes.c_void_p))


class Flite:
    def __init__(self) -> None:
        self._library = library("libflite.so.1", "flite")
        self._library.utt_wave.restype = ctypes.POINTER(_Wave)
        self._library.utt_wave.argtypes = [ctypes.c_void_p]
        for name, (gives, takes) in _FUNCTIONS.items():
            function = getattr(self._library, name)
            function.restype, function.argtypes = gives, takes
        self._library.flite_init()

    def say(self, text: str, voice: Voice) -> Said:
        """Raises Misread."""
        registered = _registered(voice.name)
        features = ctypes.cast(registered, ctypes.POINTER(_Voice)).contents.features
        self._library.feat_set_float(features, b"duration_stretch", voice.speed)
        utterance = self._library.flite_synth_text(text.encode(), registered)
        try:
            said = self._read(utterance)
        finally:
            self._library.delete_utterance(utterance)
        if len(said.words) != len(text.split()):
            raise Misread(f"flite says {len(said.words)} words for {text!r}.")
        return said

    def _read(self, utterance: int) -> Said:
        wave = self._library.utt_wave(utterance).contents
        samples = np.ctypeslib.as_array(wave.samples, (wave.num_samples,)).copy()
        phones: list[tuple[float, float, str]] = []
        words: dict[int, Span] = {}
        begin = 0.0
        segment = self._library.relation_head(self._library.utt_relation(utterance, b"Segment"))
        while segment:
            name = self._library.item_feat_string(segment, b"name").decode()
            end = min(self._library.item_feat_float(segment, b"end"), len(samples) / wave.sample_rate)
            token = self._library.path_to_item(segment, _TOKEN_OF_SEGMENT)
            if name != "pau":
                phones.append((begin, end, name))
                words[token] = (words.get(token, (begin, end))[0], end)
            begin, segment = end, self._library.item_next(segment)
        return Said(samples, int(wave.sample_rate), phones, list(words.values()))


@cache
def _registered(name: str) -> int:
    register = getattr(library(f"libflite_cmu_us_{name}.so.1", "flite"), f"register_cmu_us_{name}")
    register.restype, register.argtypes = ctypes.c_void_p, [ctypes.c_char_p]
    return int(register(None))
