"""The OpenAPI document is valid and complete, and the pages load nothing from elsewhere."""

import re
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from openapi_spec_validator import OpenAPIV32SpecValidator

from api.parts import Parts
from tests.api.conftest import Submit
from tests.support.worker_hand import WorkerHand

_UNDOCUMENTED = ("/openapi.json", "/docs", "/page", "/problems", "/internal")


@pytest.fixture
def spec(client: FlaskClient) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/openapi.json").json
    return found


def test_document_is_valid(spec: dict[str, Any]) -> None:
    assert spec["openapi"] == "3.2.0"
    OpenAPIV32SpecValidator(spec).validate()


def test_every_route_is_in_it(app: Flask, spec: dict[str, Any]) -> None:
    routes = {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if rule.rule != "/" and not rule.rule.startswith(_UNDOCUMENTED)
    }

    assert routes == {(path, method) for path, methods in spec["paths"].items() for method in methods}


def test_every_operation_tells_its_problems(spec: dict[str, Any]) -> None:
    for path, methods in spec["paths"].items():
        # OpenAI's own routes fail in its words.
        kind = "application/json" if path.startswith("/v1/audio/") else "application/problem+json"
        for operation in methods.values():
            assert operation["summary"], path
            for status, answer in operation["responses"].items():
                # The seed's route says in its own shape why it is unhealthy.
                if int(status) >= 400 and (path, status) != ("/health", "503"):
                    assert list(answer["content"]) == [kind], (path, status)


def test_submit_takes_form_body_and_address(spec: dict[str, Any]) -> None:
    operation = spec["paths"]["/v1/jobs"]["post"]

    bodies = operation["requestBody"]["content"]
    assert set(bodies) == {
        "multipart/form-data",
        "application/octet-stream",
        "audio/*",
        "application/json",
    }
    assert {"file", "language", "metadata"} <= set(bodies["multipart/form-data"]["schema"]["properties"])
    assert {"Idempotency-Key", "name", "language"} <= {
        parameter["name"] for parameter in operation["parameters"]
    }


def test_answers_have_the_shapes_they_are_documented_with(
    client: FlaskClient, submit: Submit, worker: WorkerHand, spec: dict[str, Any], parts: Parts
) -> None:
    worker.come_up()
    job = submit()
    worker.complete(job["id"])

    for shape, path in (
        ("JobOut", job["links"]["self"]),
        ("TranscriptOut", job["links"]["transcript"]),
        ("JobsOut", "/v1/jobs"),
        ("ModelsOut", "/v1/models"),
        ("ReadyOut", "/readyz"),
        ("Problem", "/nowhere"),
    ):
        schema = spec["components"]["schemas"][shape]
        answer = client.get(path).json
        assert set(schema["required"]) <= set(answer) <= set(schema["properties"]), shape


@pytest.mark.parametrize("path", ["/docs", "/docs/start.js", "/"])
def test_pages_load_from_our_own_host_only(client: FlaskClient, path: str) -> None:
    answer = client.get(path)

    assert answer.status_code == 200
    assert set(re.findall(r"https?://([^/\s\"'<]+)", answer.text)) <= {"this-host"}
    assert not re.findall(r"(?:src|href)=\"//", answer.text)


def test_what_the_docs_page_loads_is_there(client: FlaskClient) -> None:
    page = client.get("/docs").text

    for path in re.findall(r"(?:src|href)=\"([^\"]+)\"", page):
        answer = client.get("/" + path)
        assert answer.status_code == 200, path
        answer.close()
    assert "<script>" not in page
    assert "style=" not in page


def test_assets_outside_their_folder_are_404(client: FlaskClient) -> None:
    assert client.get("/docs/assets/../plugins.py").status_code == 404
    assert client.get("/docs/assets/%2e%2e/__init__.py").status_code == 404
