"""What the OpenAPI document says beyond the typed shapes: bodies that are streams, and problem answers."""

from typing import Any

from flask_openapi.models.info import Info
from flask_openapi.models.tag import Tag
from flask_openapi.types import ResponseDict
from pydantic import BaseModel

from api.schemas import OptionsIn, UrlJobIn
from shared.errors import InvalidOption, RequestError, ServiceError, StoreUnavailable

INFO = Info(
    title="Ananse",
    version="1",
    description="Asynchronous speech transcription: submit a recording, get a job, read its transcript.",
)
JOBS = Tag(name="jobs", description="Recordings and what becomes of them.")
SERVICE = Tag(name="service", description="Models, probes and these pages.")
SEED = Tag(name="seed", description="The two routes of the server this one grew from.")

NOT_MODIFIED: ResponseDict = {"304": {"description": "Nothing has changed since `If-None-Match`."}}
IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Sent again with the same request, the first job is answered and none is made.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]([ -~]*[!-~])?$"},
}

_REF = "#/components/schemas/{model}"
_RECORDING = {"type": "string", "contentMediaType": "application/octet-stream", "minLength": 1}


def answers(
    status: int, shape: type[BaseModel] | dict[str, Any] | None, *kinds: type[ServiceError]
) -> ResponseDict:
    """An operation's answer when all goes well, and the problems it may answer instead."""
    by_status: dict[int, list[type[ServiceError]]] = {}
    everywhere: tuple[type[ServiceError], ...] = (RequestError, InvalidOption, StoreUnavailable, ServiceError)
    for kind in (*kinds, *everywhere):
        if kind not in by_status.setdefault(kind.status, []):
            by_status[kind.status].append(kind)
    found: ResponseDict = {str(status): shape}
    for problem_status, problems in sorted(by_status.items()):
        found[str(problem_status)] = _problem_answer(problems)
    return found


def json_content(shape: type[BaseModel]) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": _REF.format(model=shape.__name__)}}}


def components(*shapes: type[BaseModel]) -> dict[str, Any]:
    """The shapes that answers of many formats refer to, and what those refer to."""
    found: dict[str, Any] = {}
    for shape in shapes:
        schema = shape.model_json_schema(ref_template=_REF, mode="serialization")
        found |= schema.pop("$defs", {})
        found[shape.__name__] = schema
    return found


def content(mimetype: str, example: str) -> dict[str, Any]:
    return {mimetype: {"schema": {"type": "string"}, "example": example}}


def submit_body(file_field: str) -> dict[str, Any]:
    """The three ways to hand over a recording."""
    form = _options_schema()
    form["properties"] = {file_field: _RECORDING | {"description": "The recording."}} | form["properties"]
    form["required"] = [file_field]
    return {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": form},
            "application/octet-stream": {"schema": _RECORDING},
            "audio/*": {"schema": _RECORDING},
            "application/json": {
                "schema": UrlJobIn.model_json_schema(),
                "example": {"audio_url": "https://example.org/talk.mp3", "language": "en"},
            },
        },
    }


def form_body(file_field: str) -> dict[str, Any]:
    body = submit_body(file_field)
    body["content"] = {"multipart/form-data": body["content"]["multipart/form-data"]}
    return body


def option_parameters() -> list[dict[str, Any]]:
    """Options in the query, for bodies that are the recording itself."""
    name = {"type": "string", "description": "The file's name, for a body that is the recording."}
    options = {"name": name} | _options_schema()["properties"]
    return [IDEMPOTENCY_KEY, *(_parameter(option, schema) for option, schema in options.items())]


def _parameter(option: str, schema: dict[str, Any]) -> dict[str, Any]:
    is_json = schema["type"] == "object"
    said = {"content": {"application/json": {"schema": schema}}} if is_json else {"schema": schema}
    about = {"name": option, "in": "query", "required": False, "description": schema.get("description", "")}
    return about | said


def _options_schema() -> dict[str, Any]:
    """Options as text has them: there is no null in a form or a query, what is not said is left out."""
    schema = OptionsIn.model_json_schema()
    properties = {name: _without_null(option) for name, option in schema["properties"].items()}
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _without_null(option: dict[str, Any]) -> dict[str, Any]:
    if "anyOf" not in option:
        return option
    (kind,) = (kind for kind in option["anyOf"] if kind != {"type": "null"})
    kept = {name: said for name, said in option.items() if name not in ("anyOf", "default")}
    found: dict[str, Any] = kept | kind
    return found


def _problem_answer(kinds: list[type[ServiceError]]) -> dict[str, Any]:
    return {
        "description": "; ".join(f"`{kind.code}`: {kind.title}" for kind in kinds),
        "content": {
            "application/problem+json": {
                "schema": {"$ref": _REF.format(model="Problem")},
                "example": {
                    "type": f"/problems/{kinds[0].code}",
                    "title": kinds[0].title,
                    "status": kinds[0].status,
                    "detail": kinds[0].title,
                    "instance": "/v1/jobs",
                    "code": kinds[0].code,
                    "request_id": "req_0f3a9c5e7b1d2468ace02468",
                },
            }
        },
    }
