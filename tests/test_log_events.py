"""The table of events in docs/logs.md against what the code logs."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "docs" / "logs.md"
LEVELS = ("debug", "info", "warning", "error", "exception", "critical")


def table() -> dict[str, set[str]]:
    """Events of docs/logs.md, with their levels."""
    text = TABLE.read_text().partition("### Events")[2]
    rows = re.findall(r"^\| `([a-z_]+)` \| ([a-z, ]+) \|", text, re.MULTILINE)
    return {event: set(levels.split(", ")) for event, levels in rows}


def logged() -> dict[str, set[str]]:
    """Events of the code, with their levels."""
    found: dict[str, set[str]] = {}
    for room in ("api", "shared", "worker"):
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                    _note(node, node.func, found)
    return found


def _note(call: ast.Call, function: ast.Attribute, found: dict[str, set[str]]) -> None:
    if function.attr not in LEVELS or ast.unparse(function.value) not in ("_log", "log", "get_logger()"):
        return
    event = call.args[0]
    assert isinstance(event, ast.Constant), f"an event has no fixed name: {ast.unparse(call)}"
    level = "error" if function.attr == "exception" else function.attr
    found.setdefault(event.value, set()).add(level)


def test_the_table_holds_every_event_and_no_other() -> None:
    assert table() == logged()
