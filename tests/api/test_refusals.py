"""What gunicorn refuses before the app sees it: problem documents with all headers, and nothing repeated."""

import json
import re
import socket
from collections.abc import Iterator
from http.client import HTTPResponse
from urllib.parse import urlsplit

import pytest

from api.headers import ALWAYS
from api.problems import PROBLEM_TYPE, error_class
from shared.settings import Settings
from tests.support.api_server import ApiServer, api_server

pytestmark = [pytest.mark.redis, pytest.mark.service, pytest.mark.slow]

_HOST = b"Host: x\r\n"
_POST = b"POST /v1/jobs HTTP/1.1\r\nContent-Type: audio/wav\r\n" + _HOST
_GIVE_UP_S = 20.0

REFUSED: dict[str, tuple[bytes, ...]] = {
    "uri_too_long": (b"GET /" + b"marker" * 1400 + b" HTTP/1.1\r\n" + _HOST,),
    "headers_too_large": (
        b"GET /livez HTTP/1.1\r\nCookie: " + b"marker" * 1400 + b"\r\n" + _HOST,
        b"GET /livez HTTP/1.1\r\n" + b"".join(b"Marker-%d: x\r\n" % number for number in range(200)) + _HOST,
    ),
    "unsupported_encoding": (
        _POST + b"Transfer-Encoding: marker\r\n",
        _POST + b"Transfer-Encoding: chunked, marker\r\n",
        _POST + b"Transfer-Encoding: gzip, chunked\r\n",
        _POST + b"Content-Encoding: gzip\r\nContent-Length: 6\r\n\r\nmarker",
    ),
    "invalid_request": (
        b"marker\r\n",
        b"GET /marker HTTP/9.9\r\n" + _HOST,
        b"GET /marker marker\r\n" + _HOST,
        b"mar\x00ker /livez HTTP/1.1\r\n" + _HOST,
        b"GET /livez HTTP/1.1\r\nmar ker: x\r\n" + _HOST,
        b"GET /livez HTTP/1.1\r\nMarker: a\r\n b\r\n" + _HOST,
        _POST + b"Content-Length: marker\r\n",
        _POST + b"Content-Length: 5\r\nContent-Length: 6\r\n",
        _POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        _POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        _POST + b"Expect: marker\r\nContent-Length: 1\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n",
    ),
}
"""Each code, and requests that are answered with it."""


@pytest.fixture(scope="module")
def server(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    settings = Settings(
        redis_url=redis_url, blob_url=f"file://{tmp_path_factory.mktemp('refusals')}", upload_idle_s=2
    )
    with api_server(settings) as server:
        yield server


def ask(server: ApiServer, request: bytes) -> tuple[HTTPResponse, bytes]:
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port), _GIVE_UP_S) as client:
        client.sendall(request + (b"" if b"\r\n\r\n" in request else b"\r\n"))
        answer = HTTPResponse(client)
        answer.begin()
        return answer, answer.read()


@pytest.mark.parametrize(
    ("code", "request_"), [(code, request) for code, requests in REFUSED.items() for request in requests]
)
def test_a_refusal_is_a_problem_like_all_others(server: ApiServer, code: str, request_: bytes) -> None:
    answer, body = ask(server, request_)

    document = json.loads(body)
    assert (answer.status, document["code"]) == (error_class(code).status, code), document
    assert answer.headers["Content-Type"] == PROBLEM_TYPE
    assert document["status"] == answer.status
    assert document["request_id"] == answer.headers["X-Request-ID"]
    assert ALWAYS.items() <= dict(answer.headers).items()
    assert answer.headers["Cache-Control"] == "no-store"
    assert not re.search(rb"marker|html|gunicorn|/[a-z]+/[a-z]+\.py", body, re.IGNORECASE)


def test_nothing_is_upgraded_to_a_protocol_without_our_bounds(server: ApiServer) -> None:
    upgrade = b"GET /livez HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"

    answer, _ = ask(server, upgrade + b"HTTP2-Settings: AAMAAABkAAQAAP__\r\n" + _HOST)

    assert answer.status == 200


def test_a_body_where_none_belongs_is_not_waited_for_without_end(server: ApiServer) -> None:
    """It comes to an end after `upload_idle_s`, and the connection with it."""
    head = b"POST /v1/jobs/job_a/cancel HTTP/1.1\r\nContent-Length: 999999999999\r\n" + _HOST

    answer, _ = ask(server, head + b"\r\n" + bytes(2**17))

    assert answer.status == 404
