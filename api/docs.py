"""The OpenAPI document, a Swagger UI from our own host, and what a problem's `type` leads to."""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

from flask import Blueprint, Response, current_app, jsonify, send_from_directory
from flask_openapi.openapi import OpenAPI

from api.access import Scopes, needed
from api.answers import ErrorCodeOut, TranscriptOut
from api.jobs import json_answer
from api.openai_shapes import OpenAiError, TextOut, VerboseOut
from api.openapi import SECURITY_SCHEMES, components, guarded
from api.problems import all_errors
from api.schemas import CorrectionsIn
from shared.errors import NotFound, ServiceError

_ASSETS = Path(str(files("flask_openapi_swagger"))) / "templates" / "swagger"
# Swagger UI sets style attributes; scripts and styles come from files only, and nothing from elsewhere.
_DOCS_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; style-src-attr 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_DOCS_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Ananse: API</title>
<link rel="icon" href="docs/assets/images/swagger.svg">
<link rel="stylesheet" href="docs/assets/css/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/assets/js/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
_START_SCRIPT = """SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis],
});
"""
blueprint = Blueprint("docs", __name__)


@blueprint.get("/openapi.json")
def openapi_json() -> Response:
    return jsonify(document(cast(OpenAPI, current_app)))


@blueprint.get("/docs")
def docs_page() -> Response:
    answer = Response(_DOCS_PAGE, mimetype="text/html")
    answer.headers["Content-Security-Policy"] = _DOCS_POLICY
    return answer


@blueprint.get("/docs/start.js")
def docs_script() -> Response:
    return Response(_START_SCRIPT, mimetype="text/javascript")


@blueprint.get("/docs/assets/<path:name>")
def docs_asset(name: str) -> Response:
    return send_from_directory(_ASSETS, name, max_age=3600)


@blueprint.get("/problems/<code>")
def problem_type(code: str) -> Response:
    """Where a problem document's `type` leads."""
    kind: type[ServiceError] | None = next((kind for kind in all_errors() if kind.code == code), None)
    if kind is None:
        raise NotFound()
    shape = ErrorCodeOut(code=kind.code, title=kind.title, status=kind.status, retryable=kind.retryable)
    return json_answer(shape.model_dump_json())


def document(app: OpenAPI) -> Mapping[str, Any]:
    """The OpenAPI document, made from the typed shapes and the table of scopes."""
    spec: dict[str, Any] = app.api_doc
    schemas = spec["components"]["schemas"] | components(
        CorrectionsIn, TranscriptOut, TextOut, VerboseOut, OpenAiError
    )
    parts = spec["components"] | {"schemas": schemas, "securitySchemes": SECURITY_SCHEMES}
    paths = {
        path: {method: guarded(operation, _scopes(method, path)) for method, operation in methods.items()}
        for path, methods in spec["paths"].items()
    }
    return spec | {"components": parts, "paths": paths}


def _scopes(method: str, path: str) -> Scopes:
    """The document writes `{job_id}` where routes have `<job_id>`."""
    return needed(method.upper(), path.replace("{", "<").replace("}", ">"))
