"""Every failure as an RFC 9457 problem document, with the request id that names it in answer and log."""

import json
import math
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

from flask import Flask, Response, request
from flask.typing import ResponseReturnValue
from pydantic import ValidationError
from werkzeug.exceptions import HTTPException

from api.answers import FieldError
from api.headers import secure
from api.requests import visit
from shared import errors
from shared.errors import InvalidOption, RequestError, ServiceError
from shared.log import get_logger

PROBLEM_TYPE = "application/problem+json"
REQUEST_ID_HEADER = "X-Request-ID"
OPENAI_ROUTES = "/v1/audio/"
_OPENAI_STATUSES = {"unknown_model": 404}

_UNPROCESSABLE = 422

_BY_STATUS: dict[int, type[ServiceError]] = {
    404: errors.NotFound,
    405: errors.MethodNotAllowed,
    406: errors.NotAcceptable,
    411: errors.LengthRequired,
    413: errors.UploadTooLarge,
    415: errors.UnsupportedMediaType,
    416: errors.RangeNotSatisfiable,
}


class InvalidOptions(InvalidOption):
    """One or more options are not valid; `fields` says which and why."""

    def __init__(self, fields: Iterable[FieldError]) -> None:
        self.fields = tuple(fields)
        super().__init__("; ".join(f"{error.field}: {error.message}" for error in self.fields))


def one_invalid(field: str, message: str) -> InvalidOptions:
    return InvalidOptions([FieldError(field=field, message=message)])


def of_validation(error: ValidationError) -> InvalidOptions:
    """pydantic's findings in our words; what the client sent is not repeated."""
    return InvalidOptions(
        FieldError(field=".".join(str(part) for part in found["loc"]) or "request", message=_message(found))
        for found in error.errors(include_url=False, include_input=False)
    )


def raise_validation(error: ValidationError) -> NoReturn:
    raise of_validation(error) from error


def error_class(code: str) -> type[ServiceError]:
    """The class of a code that stands in a job's failure."""
    return next((error for error in all_errors() if error.code == code), errors.Internal)


def all_errors(root: type[ServiceError] = ServiceError) -> Iterator[type[ServiceError]]:
    """Every named failure in `shared/errors.py`, in the order of the tree."""
    for error in root.__subclasses__():
        if error.__module__ == errors.__name__:
            if error is not errors.JobError:
                yield error
            yield from all_errors(error)


def request_id() -> str:
    return visit().request_id


def install(app: Flask) -> None:
    """Error handlers and the headers that every answer carries."""
    app.after_request(_finish_answer)
    app.register_error_handler(ServiceError, _on_service_error)
    app.register_error_handler(HTTPException, _on_http_error)
    app.register_error_handler(Exception, _on_unexpected)


def _finish_answer(answer: Response) -> Response:
    answer.headers[REQUEST_ID_HEADER] = request_id()
    secure(answer.headers, answer.status_code)
    return answer


def _on_service_error(error: ServiceError) -> ResponseReturnValue:
    if error.status >= 500:
        cause = type(error.__cause__).__name__
        get_logger().warning("request_failed", code=error.code, status=error.status, cause=cause)
    answer = _problem(error, error.status)
    if error.retry_after_s is not None:
        answer.headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    return answer


def _on_http_error(error: HTTPException) -> ResponseReturnValue:
    """What Flask and Werkzeug refuse on their own: unknown addresses, wrong methods, bad ranges."""
    status = error.code or 500
    if status < 400:
        return error.get_response()
    kind = _BY_STATUS.get(status, RequestError if status < 500 else errors.Internal)
    answer = _problem(kind(_http_detail(error, kind)), status)
    for name in ("Allow", "Content-Range"):
        if value := error.get_response().headers.get(name):
            answer.headers[name] = value
    return answer


def _on_unexpected(error: Exception) -> ResponseReturnValue:
    get_logger().error("unexpected_error", exc_info=error)
    return _problem(errors.Internal(), 500)


def _http_detail(error: HTTPException, kind: type[ServiceError]) -> str:
    if kind in (errors.NotFound, errors.MethodNotAllowed, errors.Internal):
        return kind.title
    return error.description or kind.title


def envelope(error: ServiceError) -> dict[str, Any]:
    """The failure in OpenAI's words; `code` stays ours."""
    kind = "invalid_request_error" if error.status < 500 else "server_error"
    fields = error.fields if isinstance(error, InvalidOptions) else ()
    param = fields[0].field if fields else None
    return {"error": {"message": error.detail, "type": kind, "param": param, "code": error.code}}


def _envelope(error: ServiceError, status: int) -> Response:
    """Its clients send again what is worth it by themselves; this says which that is."""
    status = _OPENAI_STATUSES.get(error.code, 400 if status == _UNPROCESSABLE else status)
    answer = Response(json.dumps(envelope(error)), status, content_type="application/json")
    answer.headers["X-Should-Retry"] = str(error.retryable and status >= 409).lower()
    return answer


def _problem(error: ServiceError, status: int) -> Response:
    visit().code = error.code
    if request.path.startswith(OPENAI_ROUTES):
        return _envelope(error, status)
    told = document(error, request.path, request_id()) | {"status": status}
    if isinstance(error, InvalidOptions):
        told["errors"] = [found.model_dump() for found in error.fields]
    return Response(json.dumps(told), status, content_type=PROBLEM_TYPE)


def document(error: ServiceError, instance: str, request_id: str) -> dict[str, Any]:
    """What every problem says."""
    return {
        "type": f"/problems/{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "instance": instance,
        "code": error.code,
        "request_id": request_id,
    }


def _message(found: Any) -> str:
    if found["type"] == "extra_forbidden":
        return "is not known here"
    if found["type"] == "missing":
        return "is missing"
    return str(found["msg"]).removeprefix("Value error, ")
