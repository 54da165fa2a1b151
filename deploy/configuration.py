"""`python -m deploy.configuration` writes docs/configuration.md and .env.example from Settings."""

import ast
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from annotated_types import Ge, Le
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from shared import settings
from shared.settings import PREFIX, Settings

CHECKOUT = Path(__file__).resolve().parent.parent
TABLE_PATH = CHECKOUT / "docs" / "configuration.md"
EXAMPLE_PATH = CHECKOUT / ".env.example"

_TABLE_HEAD = """\
# Configuration

Every setting is an environment variable. `ananse up` and Docker Compose also read a file `.env` in the
current folder, for which `.env.example` is the pattern; the environment wins. Sizes are in bytes, times in
seconds. A wrong value or an unknown `ANANSE_` name stops the start with one sentence on all that is wrong.

What is not in the environment may lie in a file of that name in small letters in `/run/secrets`, where Docker
and Kubernetes put secrets: `/run/secrets/ananse_redis_url`. An unknown, empty or unreadable `ananse_` file
there stops the start too.

This page is made from `shared/settings.py` by `python -m deploy.configuration`.
"""
_EXAMPLE_HEAD = """\
# Every setting of Ananse with its default; remove the # in front of what you change, and save as `.env`.
# Bounds and meanings: docs/configuration.md. Made by `python -m deploy.configuration`.
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One setting as a reader sees it; `default` is as it would be written in the environment."""

    name: str
    default: str
    bounds: str
    meaning: str


def main() -> None:
    for path, text in pages().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        print(f"wrote {path.relative_to(CHECKOUT)}")


def pages() -> dict[Path, str]:
    """What the files should say."""
    return {TABLE_PATH: table(), EXAMPLE_PATH: example()}


def table() -> str:
    lines = [_TABLE_HEAD]
    for title, rows in sections():
        lines += [f"## {title}", "", "| Setting | Default | Allowed | Meaning |", "|---|---|---|---|"]
        lines += [
            f"| `{row.name}` | {_code(row.default)} | {row.bounds} | {row.meaning.replace('|', '&#124;')} |"
            for row in rows
        ]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def example() -> str:
    lines = [_EXAMPLE_HEAD]
    for title, rows in sections():
        lines += [f"# {title}"]
        for row in rows:
            lines += [f"# {row.meaning}", f"#{row.name}={row.default}"]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def sections() -> Iterator[tuple[str, list[Row]]]:
    """The fields under the comments that group them in the class."""
    titles = _titles()
    rows: list[Row] = []
    title = ""
    for name, field in Settings.model_fields.items():
        if name in titles:
            if rows:
                yield title, rows
            title, rows = titles[name], []
        rows.append(_row(name, field))
    yield title, rows


def _row(name: str, field: FieldInfo) -> Row:
    return Row(PREFIX + name.upper(), _written(field.default), _bounds(field), field.description or "")


def _written(default: Any) -> str:
    if default is None:
        return ""
    if isinstance(default, tuple):
        return ",".join(_written(part) for part in default)
    if isinstance(default, float) and default.is_integer():
        return str(int(default))
    if isinstance(default, bool):
        return str(default).lower()
    return str(default)


def _bounds(field: FieldInfo) -> str:
    choices = getattr(field.annotation, "__args__", ())
    if choices and all(isinstance(choice, str) for choice in choices):
        return ", ".join(_code(choice) for choice in choices)
    least = next((_written(bound.ge) for bound in field.metadata if isinstance(bound, Ge)), "")
    most = next((_written(bound.le) for bound in field.metadata if isinstance(bound, Le)), "")
    if least and most:
        return f"{least} to {most}"
    if least:
        return f"at least {least}"
    return "secret" if SecretStr in choices else ""


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _titles() -> dict[str, str]:
    """By the first field under it, each comment that stands alone among the fields."""
    lines = inspect.getsource(settings).splitlines()
    body = next(
        node
        for node in ast.parse("\n".join(lines)).body
        if isinstance(node, ast.ClassDef) and node.name == Settings.__name__
    ).body
    found = {}
    for node in body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            above = lines[node.lineno - 2].strip()
            if above.startswith("# "):
                found[node.target.id] = above.removeprefix("# ")
    return found


if __name__ == "__main__":
    main()
