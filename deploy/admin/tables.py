"""Tables and amounts for people; the same rows as JSON for scripts."""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

NOTHING = "-"
_KIB = 1024.0


def show(as_json: bool, rows: object, text: str) -> None:
    print(json.dumps(rows, indent=2, default=_plain) if as_json else text)


def rows_of(values: Sequence[Any]) -> list[dict[str, Any]]:
    """Dataclasses as JSON takes them."""
    return [asdict(value) for value in values]


def add_to(parser: argparse.ArgumentParser) -> None:
    """How a table may be had: as JSON, and again and again."""
    parser.add_argument("--json", action="store_true", help="for scripts")
    parser.add_argument(
        "--watch", nargs="?", type=float, const=2.0, metavar="S", help="again every S seconds (2)"
    )


def watch(every_s: float | None, draw: Callable[[], None]) -> None:
    """Once, or again and again until Ctrl-C."""
    draw()
    while every_s is not None:
        time.sleep(every_s)
        if sys.stdout.isatty():
            print("\x1b[H\x1b[2J", end="")
        draw()
        sys.stdout.flush()


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of amounts stand to the right."""
    columns = list(zip(head, *rows, strict=True))
    lines = [_aligned(column, all(_is_amount(cell) for cell in column[1:])) for column in columns]
    return "\n".join("  ".join(cells).rstrip() for cells in zip(*lines, strict=True))


def amount(seconds: float | None) -> str:
    """The two largest units."""
    if seconds is None:
        return NOTHING
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    for unit_s, unit, lesser_s, lesser in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min")):
        if whole >= unit_s:
            return f"{whole // unit_s} {unit} {whole % unit_s // lesser_s} {lesser}"
    return f"{whole // 60} min {whole % 60} s"


def size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < _KIB:
            return f"{count:.0f} {unit}"
        count /= _KIB
    return f"{count:.1f} GiB"


def times(factor: float | None) -> str:
    """Speed, as audio seconds per second."""
    return NOTHING if not factor else f"{factor:.0f} x" if factor >= 10 else f"{factor:.1f} x"


def instant(at: datetime | None) -> str:
    return NOTHING if at is None else at.isoformat(timespec="seconds").replace("+00:00", "Z")


def _aligned(column: Sequence[str], is_right: bool) -> list[str]:
    width = max(map(len, column))
    return [cell.rjust(width) if is_right else cell.ljust(width) for cell in column]


def _is_amount(cell: str) -> bool:
    return cell == NOTHING or cell[:1].isdigit()


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
