"""Each request has an id, one line in the log when it is answered, and, where traces are on, a span.

Around Flask, not in it: a stream is answered when its last byte is out.
"""

import re
import secrets
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

from flask import Flask, request

from shared import log
from shared.job import Job
from shared.tracing import NO_SPAN, Kind, Span, Tracer, trace_id

QUIET_ROUTES = frozenset({"/livez", "/readyz", "/metrics", "/health"})
"""Asked every few seconds by those who watch: no span, and a line at DEBUG only."""

_VISIT = "ananse.visit"
_METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")

_log = log.get_logger()

Environ = dict[str, Any]


@dataclass(slots=True)
class Visit:
    """What becomes known of a request while it is worked on. `route` is the pattern of its address, `code`
    the problem it was answered with."""

    method: str
    request_id: str
    span: Span = NO_SPAN
    began: float = field(default_factory=time.monotonic)
    route: str = ""
    job_id: str = ""
    code: str = ""
    status: int = 0
    sent_bytes: int = 0


def install(app: Flask, tracer: Tracer) -> None:
    app.before_request(_note_route)
    app.wsgi_app = _Visits(app.wsgi_app, tracer)  # type: ignore[method-assign]


def visit() -> Visit:
    """That of the request at hand."""
    return cast(Visit, request.environ[_VISIT])


def about(job: Job) -> None:
    """From now on the lines of this request name the job."""
    visit().job_id = job.id
    log.add(job_id=job.id)


class _Visits:
    """WSGI around WSGI."""

    def __init__(self, app: Any, tracer: Tracer) -> None:
        self._app = app
        self._tracer = tracer

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        seen = environ[_VISIT] = self._begin(environ)

        def start(status: str, *more: Any) -> Any:
            seen.status = int(status.split(" ", 1)[0])
            return start_response(status, *more)

        # The thread is the requests' own: what an earlier one left behind is nobody's.
        log.begin(request_id=seen.request_id, trace_id=trace_id(seen.span.traceparent))
        with seen.span.inside():
            return _Answer(self._app(environ, start), seen)

    def _begin(self, environ: Environ) -> Visit:
        given = environ["REQUEST_METHOD"]
        method = given if given in _METHODS else "other"
        trace = _TRACEPARENT.fullmatch(environ.get("HTTP_TRACEPARENT", ""))
        seen = Visit(method, _request_id(environ.get("HTTP_X_REQUEST_ID", ""), trace))
        if environ.get("PATH_INFO") not in QUIET_ROUTES:
            seen.span = self._tracer.begin(method, Kind.SERVER, trace[0] if trace else "")
        return seen


class _Answer:
    """Counts what is sent. Closed by the server in the request's own thread, also when the client is gone."""

    def __init__(self, answer: Iterable[bytes], seen: Visit) -> None:
        self._answer = answer
        self._seen = seen

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._answer:
            self._seen.sent_bytes += len(chunk)
            yield chunk

    def close(self) -> None:
        try:
            if callable(close := getattr(self._answer, "close", None)):
                close()
        finally:
            _finish(self._seen)


def _request_id(given: str, trace: re.Match[str] | None) -> str:
    """The caller's own, else that of the caller's trace, else a new one."""
    if _REQUEST_ID.fullmatch(given):
        return given
    return trace[1] if trace else f"req_{secrets.token_hex(12)}"


def _note_route() -> None:
    if request.url_rule is not None:
        visit().route = request.url_rule.rule


def _finish(seen: Visit) -> None:
    line: dict[str, Any] = {
        "method": seen.method,
        "route": seen.route,
        "status": seen.status,
        "duration_ms": round((time.monotonic() - seen.began) * 1000, 1),
        "bytes": seen.sent_bytes,
    }
    if seen.code:
        line["code"] = seen.code
    if seen.route in QUIET_ROUTES:
        _log.debug("request", **line)
    else:
        _log.info("request", **line)
    seen.span.note(
        http_method=seen.method,
        http_route=seen.route or None,
        http_status=seen.status,
        job_id=seen.job_id or None,
        request_id=seen.request_id,
    )
    if seen.status >= 500:
        seen.span.fail(seen.code or str(seen.status))
    seen.span.end(f"{seen.method} {seen.route}".strip())
    log.begin()
