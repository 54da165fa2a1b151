"""What gunicorn refuses before there is a request for the app, as problem documents like all others.

What the stranger sent is neither repeated nor logged.
"""

import json
import secrets
from collections.abc import Mapping

from gunicorn.http import errors as http
from werkzeug.datastructures import Headers
from werkzeug.http import HTTP_STATUS_CODES

from api.headers import secure
from api.problems import PROBLEM_TYPE, REQUEST_ID_HEADER, document
from shared.errors import (
    HeadersTooLarge,
    Internal,
    RequestError,
    ServiceError,
    UnsupportedEncoding,
    UriTooLong,
)
from shared.log import get_logger

_KINDS: Mapping[type[Exception], type[ServiceError]] = {
    http.LimitRequestLine: UriTooLong,
    http.LimitRequestHeaders: HeadersTooLarge,
    http.UnsupportedTransferCoding: UnsupportedEncoding,
}


def refusal(error: BaseException) -> bytes:
    """The whole answer to a request that could not be read, and a line in the log."""
    kind = next((kind for cause, kind in _KINDS.items() if isinstance(error, cause)), None)
    if kind is not None:
        found: ServiceError = kind()
    elif isinstance(error, http.ParseException):
        found = RequestError("This is not HTTP/1.1 as it is understood here.")
    else:
        found = Internal()
    request_id = f"req_{secrets.token_hex(12)}"
    line = {"code": found.code, "status": found.status, "cause": type(error).__name__}
    if found.status >= 500:
        get_logger().error("request_refused", request_id=request_id, exc_info=error, **line)
    else:
        get_logger().info("request_refused", request_id=request_id, **line)
    return _answer(found, request_id)


def _answer(error: ServiceError, request_id: str) -> bytes:
    body = json.dumps(document(error, "", request_id)).encode()
    headers = Headers(
        {
            "Connection": "close",
            "Content-Type": PROBLEM_TYPE,
            "Content-Length": str(len(body)),
            REQUEST_ID_HEADER: request_id,
        }
    )
    secure(headers, error.status)
    lines = [f"HTTP/1.1 {error.status} {HTTP_STATUS_CODES[error.status]}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
