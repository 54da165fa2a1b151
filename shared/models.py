"""Models as both sides speak of them: the `ANANSE_MODELS` setting as values, and what a loaded model is."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypedDict

from shared.devices import check_device, covers

DTYPES = ("float32", "bfloat16", "float16")
MOST_WINDOWS = 256
"""In one batch."""

ALIASES = {"twi": "teckedd/whisper-small-serlabs-twi-asr"}

_MARGIN = re.compile(r"([0-9]{1,2}(?:\.[0-9]{1,2})?)s")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,95}")


@dataclass(frozen=True, slots=True)
class Shortcuts:
    """What a model's encoder may leave out on a processor. `margin_s` is how much silence it hears behind the
    sound, all that fills thirty seconds where there is none; `int8` are the matrices of its layers."""

    margin_s: float | None = None
    int8: bool = False

    def __bool__(self) -> bool:
        return self.int8 or self.margin_s is not None

    def __str__(self) -> str:
        length = "30 s" if self.margin_s is None else f"sound and {self.margin_s:g} s"
        return f"{length}, {'int8' if self.int8 else 'whole'} matrices"


@dataclass(frozen=True, slots=True)
class ModelSource:
    """`source` is a hub id or a folder; `name` is what clients call the model.

    `window_s` overrides what the checkpoint says about the longest window it was trained for, `batch_size`
    and `dtype` what the settings say for all models, `shortcuts` what the checkpoint says its encoder bears.
    Without `devices` it goes to every device.
    """

    name: str
    source: str
    revision: str | None = None
    window_s: float | None = None
    devices: tuple[str, ...] = ()
    batch_size: int | None = None
    dtype: str | None = None
    shortcuts: Shortcuts | None = None


class _Choices(TypedDict, total=False):
    """What may stand behind a model's `?`."""

    window_s: float
    devices: tuple[str, ...]
    batch_size: int
    dtype: str
    shortcuts: Shortcuts


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a loaded model can do, as the doctor found it; published under /v1/models.

    `repairs` says in words what was mended at load. `window_s` is the longest window it was trained for.
    """

    languages: tuple[str, ...]
    tasks: tuple[str, ...]
    segment_timestamps: bool
    word_timestamps: bool
    language_detection: bool
    prompt: bool
    window_s: float = 30.0
    repairs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelCard:
    """Which weights are loaded, where and how."""

    name: str
    source: str
    revision: str | None
    device: str
    dtype: str
    parameters: int
    abilities: Abilities
    details: dict[str, str] = field(default_factory=dict)

    @property
    def used(self) -> dict[str, str | None]:
        """What the record of a job says of it."""
        return {"name": self.name, "revision": self.revision, "device": self.device, "dtype": self.dtype}


def parse_models(line: str) -> tuple[ModelSource, ...]:
    """Reads `[alias=]source[@revision][?window_s=8&device=cuda:0+cpu&batch_size=16&dtype=float16
    &shortcuts=none]`, separated by commas.

    Raises ValueError, in one sentence.
    """
    models = tuple(_parse_one(part.strip()) for part in line.split(",") if part.strip())
    if not models:
        raise ValueError("at least one model must be named")
    names = [model.name for model in models]
    if len(set(names)) != len(names):
        raise ValueError("two models have the same name; give one an alias, as in name=source")
    return models


def models_on(models: Iterable[ModelSource], device: str) -> tuple[ModelSource, ...]:
    """Those that a worker on `device` is to load."""
    return tuple(
        model
        for model in models
        if not model.devices or any(covers(wanted, device) for wanted in model.devices)
    )


def queue_of(model: str) -> str:
    """The Celery queue, and the ledger's, of a model's short parts."""
    return f"transcribe.{model}"


def long_queue_of(model: str) -> str:
    """The lane of a model's long parts: they never fill the slots that short work needs."""
    return f"transcribe-long.{model}"


def _parse_one(text: str) -> ModelSource:
    source, _, query = text.partition("?")
    # A folder may hold `=` or `@` only behind the alias and the last slash, so these splits are safe.
    alias, equals, rest = source.partition("=")
    source = rest if equals else source
    source, at, revision = source.rpartition("@") if "@" in source else (source, "", "")
    if source in ALIASES and not equals:
        alias, equals = source, "="
    source = ALIASES.get(source, source)
    if not source:
        raise ValueError(f"{text!r} names no model; write name=source")
    name = alias if equals else _default_name(source)
    if not _NAME.fullmatch(name) or ".." in name:
        raise ValueError(f"{name!r} cannot be a model's name; give an alias, as in name=source")
    return ModelSource(name, source, (revision or None) if at else None, **_choices(query))


def _default_name(source: str) -> str:
    """A hub id names itself; a folder is called by its last component."""
    is_hub_id = re.fullmatch(r"[\w.-]+/[\w.-]+", source) and not source.startswith(("models/", "."))
    return source if is_hub_id else source.rstrip("/").rsplit("/", 1)[-1]


def _choices(query: str) -> _Choices:
    chosen: _Choices = {}
    for pair in query.split("&") if query else ():
        name, _, value = pair.partition("=")
        if name in chosen or f"{name}s" in chosen:
            raise ValueError(f"?{query} says {name} twice")
        match name:
            case "window_s":
                chosen["window_s"] = _window_s(value)
            case "device":
                chosen["devices"] = tuple(check_device(device) for device in value.split("+"))
            case "batch_size":
                chosen["batch_size"] = _batch_size(value)
            case "dtype":
                chosen["dtype"] = _dtype(value)
            case "shortcuts":
                chosen["shortcuts"] = parse_shortcuts(value)
            case _:
                raise ValueError(
                    f"?{query} is not understood; only window_s, device, batch_size, dtype and shortcuts may "
                    "follow a model, joined by &"
                )
    return chosen


def _window_s(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds <= 30:
        raise ValueError(f"window_s={value} is not understood; only ?window_s=1..30 may follow a model")
    return seconds


def _batch_size(value: str) -> int:
    if not value.isascii() or not value.isdecimal() or not 1 <= int(value) <= MOST_WINDOWS:
        raise ValueError(f"batch_size={value} is not understood; write batch_size=1..{MOST_WINDOWS}")
    return int(value)


def parse_shortcuts(value: str) -> Shortcuts:
    """Reads `int8`, a margin as in `2.5s`, both joined by +, or `none`. Raises ValueError."""
    parts = [] if value == "none" else value.split("+")
    margins = [match[1] for part in parts if (match := _MARGIN.fullmatch(part))]
    others = [part for part in parts if not _MARGIN.fullmatch(part)]
    if len(margins) > 1 or others not in ([], ["int8"]):
        raise ValueError(f"shortcuts={value} is not understood; write none, int8, 2.5s or int8+2.5s")
    return Shortcuts(float(margins[0]) if margins else None, bool(others))


def _dtype(value: str) -> str:
    if value not in DTYPES:
        raise ValueError(f"dtype={value} is not understood; write one of {', '.join(DTYPES)}")
    return value
