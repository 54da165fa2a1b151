"""The page is served as its files lie there, loads nothing from elsewhere, and is in the package."""

import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
from flask.testing import FlaskClient

ROOT = Path(__file__).parents[2]
FILES = sorted(path.name for path in (ROOT / "api" / "page").iterdir())


@pytest.mark.parametrize("name", FILES)
def test_each_file_is_asked_for_anew_and_known_by_its_tag(client: FlaskClient, name: str) -> None:
    with client.get(f"/page/{name}") as answer:
        assert answer.status_code == 200
        assert answer.data == (ROOT / "api" / "page" / name).read_bytes()
        assert "no-cache" in answer.headers["Cache-Control"]
        tag = answer.headers["ETag"]
    with client.get(f"/page/{name}", headers={"If-None-Match": tag}) as again:
        assert again.status_code == 304


def test_the_page_may_use_the_microphone_and_play_what_is_in_memory(client: FlaskClient) -> None:
    with client.get("/") as answer:
        policy = answer.headers["Content-Security-Policy"]
        assert "media-src 'self' blob:;" in policy
        assert "'unsafe" not in policy
        assert "require-trusted-types-for 'script'; trusted-types 'none'" in policy
        assert "microphone=(self)" in answer.headers["Permissions-Policy"]
        assert "camera=()" in answer.headers["Permissions-Policy"]
        page = answer.text
    assert not re.search(r"<style|\son\w+=|\sstyle=", page)
    assert not [inside for inside in re.findall(r"<script[^>]*>(.*?)</script>", page, re.DOTALL) if inside]
    for link in re.findall(r'(?:src|href)="([^"#]+)"', page):
        with client.get(f"/{link}") as loaded:
            assert loaded.status_code == 200, link


def test_all_it_imports_is_there(client: FlaskClient) -> None:
    for name in FILES:
        text = (ROOT / "api" / "page" / name).read_text()
        for wanted in re.findall(r'from "\./([^"]+)"', text):
            assert wanted in FILES, (name, wanted)
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text), name
        assert set(re.findall(r"https?://([a-z0-9.]+)", text)) <= {"www.w3.org"}, name


def test_files_outside_are_404(client: FlaskClient) -> None:
    for name in ("..%2ffront.py", "%2e%2e/front.py", "nothing.js", ""):
        assert client.get(f"/page/{name}").status_code == 404


def test_the_wheel_takes_them_along() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["api"]

    assert [name for name in FILES if not any(fnmatch(f"page/{name}", one) for one in patterns)] == []
