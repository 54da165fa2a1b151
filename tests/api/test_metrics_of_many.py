"""Metrics of an API of several processes: one page for all, whoever answers, and nothing goes back when one dies."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from shared.settings import Settings
from tests.support.api_server import ApiServer, api_server
from tests.support.metrics import found, value
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.service, pytest.mark.redis]

PROCESSES = 2
ROUTE = "/v1/models"


@pytest.fixture
def server(settings: Settings) -> Iterator[ApiServer]:
    with api_server(settings.model_copy(update={"api_workers": PROCESSES})) as server:
        wait_until(lambda: len(children(server)) == PROCESSES)
        yield server


def children(server: ApiServer) -> list[psutil.Process]:
    return psutil.Process(psutil.Process(server.pid).ppid()).children()


def ask(server: ApiServer, path: str) -> httpx.Response:
    """On a connection of its own, so that any process may answer."""
    return httpx.get(server.url + path)


def counted(server: ApiServer) -> float:
    return value(ask(server, "/metrics").text, "ananse_http_requests_total", route=ROUTE)


@pytest.mark.slow
def test_all_processes_count_into_one_and_a_killed_one_stays_counted(server: ApiServer) -> None:
    for _ in range(20):
        assert ask(server, ROUTE).status_code == 200
    assert {counted(server) for _ in range(10)} == {20}
    page = ask(server, "/metrics").text
    assert value(page, "process_resident_memory_bytes") > 1.5 * server.rss_bytes()

    os.kill(server.pid, signal.SIGKILL)
    wait_until(lambda: len(children(server)) == PROCESSES and server.pid not in pids(server))

    assert {counted(server) for _ in range(10)} == {20}
    cpu_s = [value(ask(server, "/metrics").text, "process_cpu_seconds_total") for _ in range(10)]
    assert cpu_s == sorted(cpu_s)
    assert cpu_s[0] >= value(page, "process_cpu_seconds_total")


@pytest.mark.slow
def test_a_client_of_a_killed_process_waits_no_more(server: ApiServer) -> None:
    job = httpx.post(server.url + "/v1/jobs", content=b"sound", headers={"Content-Type": "audio/wav"}).json()
    with (
        httpx.Client(timeout=30) as client,
        client.stream("GET", server.url + job["links"]["events"]) as stream,
    ):
        next(stream.iter_bytes())
        assert waiting(server) == 1
        for child in children(server):
            child.kill()
        wait_until(lambda: len(children(server)) == PROCESSES)

        wait_until(lambda: waiting(server) == 0)


@pytest.mark.slow
def test_a_reload_forgets_nothing_and_the_end_leaves_nothing(settings: Settings) -> None:
    with api_server(settings.model_copy(update={"api_workers": PROCESSES})) as server:
        first = psutil.Process(server.pid).ppid()
        ask(server, ROUTE)
        folder = counts_of(server)
        before = set(pids(server))
        os.kill(first, signal.SIGHUP)
        wait_until(lambda: len(pids(server)) == PROCESSES and not before & set(pids(server)))

        wait_until(lambda: counted(server) == 1)
        assert folder.exists()
    assert not folder.exists()


def pids(server: ApiServer) -> list[int]:
    return [child.pid for child in children(server)]


def waiting(server: ApiServer) -> float:
    return sum(found(ask(server, "/metrics").text, "ananse_waiting_clients"))


def counts_of(server: ApiServer) -> Path:
    """The folder its processes count in."""
    files = {file.path for child in children(server) for file in child.memory_maps()}
    return Path(next(path for path in files if "ananse-counts-" in path)).parent
