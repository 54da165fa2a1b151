"""The logs of a real API and worker: JSON, tied to jobs and requests, silent on what clients say."""

import json
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from shared.fleet import Fleet
from shared.job_store import JobStore
from shared.redis_store import RedisStore, connect
from shared.settings import Settings
from tests.support import secrets
from tests.support.api_server import ApiServer, api_server
from tests.support.waiting import wait_until
from tests.support.worker_context import SECRET
from tests.support.worker_process import PLAIN, worker_process
from tests.test_log_events import table
from tests.worker.receiver import http, receiver

pytestmark = [pytest.mark.redis, pytest.mark.service, pytest.mark.slow]

PATIENCE_S = 60.0
REQUEST_ID = "req-of-this-job"


@dataclass(frozen=True)
class Logs:
    """What one job's life left in both logs; `said` are words of its transcript."""

    job_id: str
    said: tuple[str, ...]
    api: list[str]
    worker: list[str]

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (*self.api, *self.worker)]

    def named(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["event"] == event]


@pytest.fixture(scope="module")
def logs(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Logs]:
    """One job, whose webhook is refused once, and all kinds of requests beside it; at the chattiest level."""
    folder = tmp_path_factory.mktemp("logs")
    settings = Settings(redis_url=redis_url, blob_url=f"file://{folder}/blobs", log_level="DEBUG")
    for_worker = Settings(
        **settings.model_dump(exclude_unset=True),
        webhook_allow=(ip_network("127.0.0.0/8"),),
        webhook_retry_s=(0.1,),
        webhook_secret=SECRET,
        sweep_s=0.2,
    )
    with connect(redis_url) as client, receiver(http(500), http(200)) as hook:
        client.flushdb()
        fleet, jobs = Fleet(RedisStore(client)), JobStore(RedisStore(client))
        with (
            worker_process(for_worker, fleet, folder / "worker.log", PLAIN) as worker,
            api_server(settings) as server,
            httpx.Client(base_url=server.url, timeout=PATIENCE_S) as caller,
        ):
            job = secrets.submit(caller, hook.url(path=""), **{"X-Request-Id": REQUEST_ID})
            wait_until(lambda: jobs.get(job["id"]).webhook_status == "delivered", 60)
            said = caller.get(f"/v1/jobs/{job['id']}/transcript?format=text").text.split()
            fetched = secrets.submit_address(caller, hook.url(path=""))
            wait_until(lambda: jobs.get(fetched["id"]).status.is_terminal, 60)
            _ask_around(caller, server)
            assert worker.stop() == 0
        yield Logs(job["id"], tuple(said), server.log, (folder / "worker.log").read_text().splitlines())


def _ask_around(caller: httpx.Client, server: ApiServer) -> None:
    """Requests that are refused, some of them by gunicorn itself."""
    caller.get("/v1/jobs/marker-stranger")
    caller.get("/v1/jobs/marker-stranger?x=marker-query")
    caller.get("/marker-path")
    caller.get("/livez")
    caller.request("marker-path", "/v1/jobs")
    address = urlsplit(server.url)
    for request in (b"GET /marker-path marker-refused", b"GET / HTTP/1.1\r\nmarker refused: x"):
        with socket.create_connection((address.hostname, address.port), PATIENCE_S) as client:
            client.sendall(request + b"\r\n\r\n")
            assert client.recv(1000).startswith(b"HTTP/1.1 4")


def test_every_line_is_an_event(logs: Logs) -> None:
    for line in logs.lines:
        assert {"event", "level", "timestamp"} <= line.keys(), line


def test_every_line_of_the_job_names_it_its_request_and_its_step(logs: Logs) -> None:
    ours = [line for line in logs.lines if line.get("job_id") == logs.job_id]
    submitted = [line for line in ours if line.get("step") is None and line["event"] == "job_created"]
    steps = [line for line in ours if "step" in line]

    assert len(submitted) == 1
    assert {line["request_id"] for line in (*submitted, *steps)} == {REQUEST_ID}
    assert {line["step"] for line in steps} >= {"prepare", "part-0", "finish", "deliver-0"}
    assert all(line["worker"] for line in steps)
    assert all(line["attempt"] >= 1 for line in steps if line["event"] != "step_not_claimed")


def test_what_names_the_request_names_the_job_from_its_creation(logs: Logs) -> None:
    of_request = [line for line in logs.lines if line.get("request_id") == REQUEST_ID]

    assert {line.get("job_id") for line in of_request} == {logs.job_id}


def test_each_change_of_state_is_a_line(logs: Logs) -> None:
    events = [line["event"] for line in logs.lines if line.get("job_id") == logs.job_id]

    for event in ("job_created", "job_prepared", "job_completed", "webhook_put_off", "webhook_delivered"):
        assert events.count(event) == 1, event
    assert events.count("step_claimed") == events.count("step_done") == 5


def test_each_request_is_one_line_with_its_route(logs: Logs) -> None:
    lines = logs.named("request")
    seen = {(line["method"], line["route"], line["status"]) for line in lines}

    assert ("POST", "/v1/jobs", 202) in seen
    assert ("GET", "/v1/jobs/<job_id>", 404) in seen
    assert ("GET", "", 404) in seen
    assert ("GET", "/v1/jobs/<job_id>/transcript", 200) in seen
    (submitted,) = (line for line in lines if line["status"] == 202 and line["job_id"] == logs.job_id)
    assert submitted["bytes"] > 100
    assert submitted["duration_ms"] > 0
    (unknown,) = (line for line in lines if line["route"] == "/v1/jobs/<job_id>" and line["status"] == 404)
    assert unknown["code"] == "not_found"
    assert "job_id" not in unknown


def test_who_watches_is_a_line_at_debug_only(logs: Logs) -> None:
    (probe,) = (line for line in logs.named("request") if line["route"] == "/livez")

    assert probe["level"] == "debug"


@pytest.mark.parametrize("marker", secrets.MARKERS)
def test_what_a_client_says_is_not_repeated(logs: Logs, marker: str) -> None:
    assert not [line for line in (*logs.api, *logs.worker) if marker in line]


def test_neither_are_transcript_and_signing_secret(logs: Logs) -> None:
    everything = "\n".join((*logs.api, *logs.worker))

    assert len(logs.said) >= 8
    assert not [word for word in (*logs.said, SECRET, SECRET.removeprefix("whsec_")) if word in everything]


def test_every_event_is_in_the_table(logs: Logs) -> None:
    """Other people's lines are sentences."""
    assert {line["event"] for line in logs.lines if re.fullmatch("[a-z_]+", line["event"])} <= set(table())
