"""docs/security.md promises tests: each of them is there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "security.md"

_NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


def rows() -> list[list[str]]:
    """Threat, guard and test, without heads."""
    lines = re.findall(r"^\| (?!Threat \|)(.+) \|$", PAGE.read_text(), re.MULTILINE)
    return [line.split(" | ") for line in lines]


def test_every_threat_has_a_guard_and_a_test_that_is_there() -> None:
    assert len(rows()) >= 25
    for threat, guard, test in rows():
        assert guard, threat
        named = _NAMED.findall(test)
        assert named, threat
        for file, function in named:
            text = (ROOT / file).read_text()
            assert re.search(rf"^def {function or 'test_'}", text, re.MULTILINE), (threat, file, function)
