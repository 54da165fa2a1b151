"""What the decoder tells, read as the words of a stranger: the file may have taken it over. Numbers within
bounds, short plain words, one of our codes; anything else is ValueError."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, TypeAdapter

from shared.errors import (
    CorruptAudio,
    DecodeLimit,
    EmptyAudio,
    JobError,
    NoAudio,
    OutOfMemory,
    TooLong,
    UnsupportedFormat,
)
from worker.engine.decoder.sandbox import Guard

REFUSALS = (CorruptAudio, DecodeLimit, EmptyAudio, NoAudio, OutOfMemory, TooLong, UnsupportedFormat)
FAILURES: dict[str, type[JobError]] = {error.code: error for error in REFUSALS}

Word = Annotated[str, Field(pattern=r"^[a-z0-9_]{1,32}$")]
Sentence = Annotated[str, Field(pattern=r"^[A-Za-z0-9 _:,.]{1,160}$")]
"""No slash: a path is none."""

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True)
class Probe:
    """What the file says of itself, before any of it is decoded. Never to be relied on.

    `guards` are the sandbox's, told before the file was opened."""

    container: Word
    codec: Word
    duration_s: Seconds | None
    sample_rate: Annotated[int, Field(gt=0)]
    channels: Annotated[int, Field(gt=0)]
    guards: tuple[Guard, ...] = ()


@dataclass(frozen=True, slots=True)
class _Failure:
    code: Word
    detail: Sentence


@dataclass(frozen=True, slots=True)
class _End:
    warnings: Annotated[tuple[Sentence, ...], Field(max_length=8)]


_probe, _failure, _end = TypeAdapter(Probe), TypeAdapter(_Failure), TypeAdapter(_End)


def probe(payload: bytes) -> Probe:
    return _probe.validate_json(payload)


def warnings(payload: bytes) -> tuple[str, ...]:
    return _end.validate_json(payload).warnings


def failure(payload: bytes) -> JobError:
    told = _failure.validate_json(payload)
    if told.code not in FAILURES:
        raise ValueError("no such code")
    return FAILURES[told.code](told.detail)
