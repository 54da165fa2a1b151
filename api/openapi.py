"""What the OpenAPI document says beyond the typed shapes: bodies that are streams, and problem answers."""

from typing import Any

from flask_openapi.models.info import Info
from flask_openapi.models.tag import Tag
from flask_openapi.types import ResponseDict
from pydantic import BaseModel

from api.access import Scopes
from api.schemas import OptionsIn, UrlJobIn
from shared.errors import (
    Forbidden,
    HeadersTooLarge,
    InvalidOption,
    LimitReached,
    RequestError,
    ServiceError,
    StoreUnavailable,
    Unauthorized,
    UriTooLong,
)

INFO = Info(
    title="Ananse",
    version="1",
    description="Asynchronous speech transcription: submit a recording, get a job, read its transcript.",
)
JOBS = Tag(name="jobs", description="Recordings and what becomes of them.")
SERVICE = Tag(name="service", description="Models, probes and these pages.")
OPENAI = Tag(name="openai", description="OpenAI's audio contract, over the same queue.")
SEED = Tag(name="seed", description="The two routes of the server this one grew from.")

SECURITY_SCHEMES = {
    "api_key": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "ananse_<id>_<secret>",
        "description": "An API key; each operation names the scopes it takes, `admin` stands for all. It is "
        "asked for once a first key was made, and wherever others than trusted machines reach the service.",
    }
}
"""Where every operation says what it takes: see `guarded`."""
NOT_MODIFIED: ResponseDict = {"304": {"description": "Nothing has changed since `If-None-Match`."}}
IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Sent again with the same request, the first job is answered and none is made.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]([ -~]*[!-~])?$"},
}

_EVERYWHERE: tuple[type[ServiceError], ...] = (
    RequestError,
    UriTooLong,
    InvalidOption,
    HeadersTooLarge,
    StoreUnavailable,
    ServiceError,
)
_REF = "#/components/schemas/{model}"
_RECORDING = {"type": "string", "contentMediaType": "application/octet-stream", "minLength": 1}


def answers(
    status: int, shape: type[BaseModel] | dict[str, Any] | None, *kinds: type[ServiceError]
) -> ResponseDict:
    """An operation's answer when all goes well, and the problems it may answer instead."""
    by_status: dict[int, list[type[ServiceError]]] = {}
    for kind in (*kinds, *_EVERYWHERE):
        if kind not in by_status.setdefault(kind.status, []):
            by_status[kind.status].append(kind)
    found: ResponseDict = {str(status): shape}
    for problem_status, problems in sorted(by_status.items()):
        found[str(problem_status)] = _problem_answer(problems)
    return found


def guarded(operation: dict[str, Any], scopes: Scopes) -> dict[str, Any]:
    """The operation with the scopes it takes, and what those are told who have none."""
    if not scopes:
        return operation | {"security": []}
    limits: list[type[ServiceError]] = [LimitReached, *LimitReached.__subclasses__()]
    refused: list[list[type[ServiceError]]] = [[Unauthorized], [Forbidden], limits]
    refusals = {str(kinds[0].status): _problem_answer(kinds) for kinds in refused}
    responses = dict(sorted((refusals | operation["responses"]).items()))
    return operation | {"security": [{"api_key": sorted(scopes)}], "responses": responses}


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


def openai_body() -> dict[str, Any]:
    """OpenAI's form; options of ours may stand in it too."""
    own = _options_schema()["properties"]
    shared = {name: own[name] for name in ("language", "prompt", "temperature")}
    text = {"type": "string"}
    form = {
        "type": "object",
        "properties": {
            "file": _RECORDING | {"description": "The recording."},
            "model": text | {"description": "One of ours; `whisper-1` is the default one."},
            "response_format": text
            | {"enum": ["json", "text", "srt", "verbose_json", "vtt"], "default": "json"},
            "timestamp_granularities[]": {
                "type": "array",
                "items": {"type": "string", "enum": ["word", "segment"]},
            },
            "stream": {"type": "boolean", "default": False},
            "chunking_strategy": text | {"description": "`auto`, or an object of type `server_vad`."},
        }
        | shared,
        "required": ["file"],
    }
    return {"required": True, "content": {"multipart/form-data": {"schema": form}}}


def envelope_answers(good: dict[str, Any], failure: type[BaseModel]) -> ResponseDict:
    """An operation that fails in OpenAI's words."""
    content = json_content(failure)
    bad = {"description": "What is wrong, by `error.code`.", "content": content}
    found: ResponseDict = {"200": good}
    for status in (400, 401, 403, 404, 409, 413, 429, 500, 503, 504, 507):
        found[str(status)] = bad
    return found


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
    plain: dict[str, Any] = {n: value for n, value in option.items() if n not in ("anyOf", "default")}
    return {**plain, **kind}


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
