"""The security headers are on every answer of every route, and pages still may do what they need."""

import re
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.routing import Rule
from werkzeug.test import TestResponse

from api.headers import ALWAYS
from tests.api.conftest import Submit

pytestmark = pytest.mark.redis

NEEDED = {
    "Content-Security-Policy": "default-src 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-",
}
"""Each header, and what stands in it."""

OWN_POLICY = "(GET|HEAD) (/docs|/)"
OWN_PERMISSIONS = {(f"{method} /", "Permissions-Policy") for method in ("GET", "HEAD")}
"""Pages with more rights than none; the first one records."""


def asked(client: FlaskClient, app: Flask) -> list[tuple[str, TestResponse]]:
    """Each route by each of its methods, and two that there are not."""
    rules: list[Rule] = list(app.url_map.iter_rules())
    found = [
        (f"{method} {rule.rule}", client.open(re.sub("<[^>]+>", "x", rule.rule), method=method))
        for rule in rules
        for method in sorted(rule.methods or ())
    ]
    return [*found, ("GET /nowhere", client.get("/nowhere")), ("PUT /v1/jobs", client.put("/v1/jobs"))]


def test_every_answer_of_every_route_carries_them(client: FlaskClient, app: Flask) -> None:
    answers = asked(client, app)

    assert len(answers) > 60
    assert {answer.status_code for _, answer in answers} >= {200, 404, 405}
    for name, answer in answers:
        for header, word in NEEDED.items():
            if (name, header) not in OWN_PERMISSIONS:
                assert word in answer.headers.get(header, ""), (name, header)
        if not re.fullmatch(OWN_POLICY, name):
            assert answer.headers["Content-Security-Policy"] == ALWAYS["Content-Security-Policy"], name


def test_no_policy_lets_anything_in_from_elsewhere_or_run_inline_scripts(
    client: FlaskClient, app: Flask
) -> None:
    for name, answer in asked(client, app):
        policy = directives(answer.headers["Content-Security-Policy"])
        assert policy["default-src"] == ["'none'"], name
        assert policy["frame-ancestors"] == ["'none'"], name
        assert policy.get("script-src", ["'self'"]) == ["'self'"], name
        sources = {source for values in policy.values() for source in values}
        assert sources <= {"'none'", "'self'", "'script'", "data:", "blob:", "'unsafe-inline'"}, name
        assert "blob:" not in policy.get("script-src", []), name
        assert [rule for rule, values in policy.items() if "'unsafe-inline'" in values] in (
            [],
            ["style-src-attr"],
        ), name


def test_the_docs_need_no_more_than_their_policy(client: FlaskClient) -> None:
    """What stands in the page is loaded from our own host, and nothing stands between its tags."""
    page = client.get("/docs").text

    scripts = re.findall(r"<script([^>]*)>(.*?)</script>", page, re.DOTALL)
    assert len(scripts) == 2
    assert all('src="docs/' in attributes and not inside for attributes, inside in scripts)
    assert not re.search(r"<style|\son\w+=|\sstyle=", page)
    for link in re.findall(r'(?:src|href)="([^"]+)"', page):
        with client.get(f"/{link}") as loaded:
            assert loaded.status_code == 200, link


def test_the_bundle_puts_no_styles_of_its_own_into_the_page(client: FlaskClient) -> None:
    """`style-src 'self'` would keep them out; style attributes are allowed."""
    with client.get("/docs/assets/js/swagger-ui-bundle.js") as bundle:
        assert not re.search(r"""createElement\(["']style["']\)""", bundle.text)


@pytest.mark.parametrize("asked_range", ["bytes=9999999-", "bytes=5-2", "lines=1-2", "bytes=-0"])
def test_a_range_there_is_not_has_its_code(client: FlaskClient, submit: Submit, asked_range: str) -> None:
    job: dict[str, Any] = submit()

    answer = client.get(job["links"]["audio"], headers={"Range": asked_range})

    assert (answer.status_code, answer.json["code"]) == (416, "range_not_satisfiable")
    assert answer.headers["Content-Range"] == f"bytes */{job['media']['size_bytes']}"


def directives(policy: str) -> dict[str, list[str]]:
    return {words[0]: words[1:] for part in policy.split(";") if (words := part.split())}
