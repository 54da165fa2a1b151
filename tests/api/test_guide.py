"""docs/api.md says what the code does: every code, every route, every option."""

import re
from pathlib import Path

import pytest
from flask import Flask

from api.problems import all_errors
from api.schemas import OptionsIn

_ROW = re.compile(r"^\| `(\w+)` \| (\d{3}) \| (yes|no) \| (.+) \|$", re.MULTILINE)


@pytest.fixture(scope="module")
def guide() -> str:
    return (Path(__file__).parents[2] / "docs" / "api.md").read_text()


def test_table_of_codes_is_the_tree_of_errors(guide: str) -> None:
    rows = {(code, int(status), again == "yes", title) for code, status, again, title in _ROW.findall(guide)}

    assert rows == {(kind.code, kind.status, kind.retryable, kind.title) for kind in all_errors()}


def test_every_route_is_told(app: Flask, guide: str) -> None:
    for rule in app.url_map.iter_rules():
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule).replace("{job_id}", "{id}")
        if not path.startswith("/docs/"):
            assert f"{path}`" in guide, path


def test_every_option_is_told(guide: str) -> None:
    table = guide.split("### Options")[1].split("\n## ")[0]

    assert set(re.findall(r"`(\w+)`", table)) >= set(OptionsIn.model_fields)
