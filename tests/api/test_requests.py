"""Requests by their names: the id they carry, and what is kept of it."""

import pytest
from flask.testing import FlaskClient

from api.parts import Parts
from tests.api.conftest import Submit

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE_ID}-b7ad6b7169203331-01"


def answered(client: FlaskClient, **headers: str) -> str:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.get("/nowhere", headers=given).headers["X-Request-ID"]


def test_a_request_without_a_name_goes_by_its_trace(client: FlaskClient) -> None:
    assert answered(client, traceparent=TRACEPARENT) == TRACE_ID
    assert answered(client, traceparent=TRACEPARENT, X_Request_ID="mine") == "mine"


@pytest.mark.parametrize(
    "given",
    [
        TRACEPARENT.upper(),
        TRACEPARENT[:-1],
        TRACEPARENT.replace(TRACE_ID, "0" * 32),
        TRACEPARENT.replace("b7ad6b7169203331", "0" * 16),
        "ff" + TRACEPARENT[2:],
        TRACEPARENT + "\u00e9",
    ],
)
def test_a_trace_that_is_none_names_nothing(client: FlaskClient, given: str) -> None:
    assert answered(client, traceparent=given).startswith("req_")


def test_the_job_keeps_the_name_of_its_request(submit: Submit, parts: Parts, client: FlaskClient) -> None:
    job = parts.jobs.get(submit()["id"])

    assert job.request_id.startswith("req_")
    # Where traces are off, nothing pretends to be one.
    assert job.traceparent == ""
