"""JSON into frozen dataclasses. What a newer service adds is left out; what an old one lacks is default."""

from collections.abc import Hashable, Mapping
from dataclasses import fields
from datetime import datetime
from functools import cache
from types import UnionType
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")


def read(kind: type[T], raw: Mapping[str, Any]) -> T:
    """A field named `raw` gets all of it."""
    hints: dict[str, Any] = _hints(cast(Hashable, kind))
    given = {name: _value(hint, raw[name]) for name, hint in hints.items() if name in raw}
    if "raw" in hints:
        given["raw"] = dict(raw)
    return kind(**given)


@cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def _value(hint: Any, value: Any) -> Any:
    origin, inner = get_origin(hint), get_args(hint)
    if value is None:
        return None
    if origin in (Union, UnionType):
        return _value(next(part for part in inner if part is not type(None)), value)
    if origin is tuple:
        return tuple(_value(inner[0], part) for part in value)
    if hint is datetime:
        # Python 3.10 does not read the Z.
        return datetime.fromisoformat(value.replace("Z", "+00:00"))
    if hint is float:
        return float(value)
    if isinstance(hint, type) and hasattr(hint, "__dataclass_fields__"):
        return read(hint, value)
    return value
