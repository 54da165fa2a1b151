"""Problem documents: every refusal and every accident is one, with a code and a request id."""

import pytest
from flask import Flask
from flask.testing import FlaskClient
from structlog.testing import capture_logs

from api.problems import all_errors, error_class
from shared import errors
from shared.errors import Internal, ServiceError, StoreUnavailable
from shared.settings import Settings


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/v1/jobs/job_x", 404, "not_found"),
        ("PUT", "/v1/jobs", 405, "method_not_allowed"),
        ("GET", "/v1/jobs?limit=0", 422, "invalid_option"),
        ("POST", "/v1/jobs", 411, "length_required"),
        ("GET", "/problems/no_such_code", 404, "not_found"),
    ],
)
def test_refusals_are_problems(client: FlaskClient, method: str, path: str, status: int, code: str) -> None:
    answer = client.open(path, method=method)

    assert answer.status_code == status
    assert answer.content_type == "application/problem+json"
    assert answer.json["status"] == status
    assert answer.json["code"] == code
    assert answer.json["type"] == f"/problems/{code}"
    assert answer.json["instance"] == path.split("?")[0]
    assert answer.json["request_id"] == answer.headers["X-Request-ID"]
    assert answer.json["title"]
    assert answer.json["detail"]


def test_wrong_method_says_which_are_right(client: FlaskClient) -> None:
    assert "POST" in client.put("/v1/jobs").headers["Allow"]


def test_accidents_are_logged_and_not_shown(app: Flask, client: FlaskClient) -> None:
    app.add_url_rule("/accident", view_func=_accident)

    with capture_logs() as logged:
        answer = client.get("/accident")

    assert (answer.status_code, answer.json["code"]) == (500, "internal")
    assert "secret" not in answer.text
    (line,) = logged
    assert line["event"] == "unexpected_error"
    assert str(line["exc_info"]) == "secret detail"


def _accident() -> str:
    raise RuntimeError("secret detail")


def test_time_to_come_back_is_told(app: Flask, client: FlaskClient) -> None:
    def busy() -> str:
        raise StoreUnavailable(retry_after_s=4.2)

    app.add_url_rule("/busy", view_func=busy)

    answer = client.get("/busy")

    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")


@pytest.mark.parametrize("given", ["req-7", "a.b:c_d", "x" * 64])
def test_good_request_ids_are_kept(client: FlaskClient, given: str) -> None:
    assert client.get("/livez", headers={"X-Request-ID": given}).headers["X-Request-ID"] == given


@pytest.mark.parametrize("given", ["", "a b", "x" * 65, "é", '"}'])
def test_bad_request_ids_are_replaced(client: FlaskClient, given: str) -> None:
    assert client.get("/livez", headers={"X-Request-ID": given}).headers["X-Request-ID"].startswith("req_")


@pytest.mark.parametrize("path", ["/", "/docs", "/livez", "/nowhere", "/v1/jobs"])
def test_every_answer_carries_the_security_headers(client: FlaskClient, path: str) -> None:
    headers = client.get(path).headers

    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert "unsafe-eval" not in headers["Content-Security-Policy"]


def test_every_code_is_found_again_and_explained(client: FlaskClient) -> None:
    for kind in all_errors():
        assert error_class(kind.code).code == kind.code
        answer = client.get(f"/problems/{kind.code}")
        assert answer.json["status"] == error_class(kind.code).status


def test_all_errors_are_all_of_the_tree() -> None:
    named = {
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, ServiceError) and "code" in vars(value)
    }

    assert set(all_errors()) == named - {ServiceError, errors.JobError}
    assert error_class("no_such_code") is Internal


def test_redirects_stay_redirects(app: Flask, client: FlaskClient, settings: Settings) -> None:
    app.add_url_rule("/folder/", view_func=lambda: "here")

    assert client.get("/folder").status_code == 308
