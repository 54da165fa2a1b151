"""Metrics of an API of several processes: one page for all, and nothing goes back when one of them dies."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from shared.settings import Settings
from tests.support.api_server import api_server
from tests.support.metrics import value
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.service, pytest.mark.slow, pytest.mark.redis]

PROCESSES = 2
LOOKS = 10
ROUTE = "/v1/models"


@dataclass(frozen=True, slots=True)
class Many:
    """A gunicorn of several processes; `first` started the others."""

    url: str
    first: psutil.Process

    def children(self) -> list[psutil.Process]:
        return self.first.children()

    def pids(self) -> set[int]:
        return {child.pid for child in self.children()}

    def ask(self, path: str) -> str:
        """On a connection of its own, so that any process may answer."""
        return httpx.get(self.url + path, timeout=30).raise_for_status().text

    def looks(self, name: str, **labels: str) -> list[float]:
        """What many looks at the page tell, one after another."""
        return [value(self.ask("/metrics"), name, **labels) for _ in range(LOOKS)]

    def counted(self) -> set[float]:
        return set(self.looks("ananse_http_requests_total", route=ROUTE))

    def folder(self) -> Path:
        """Where they count."""
        files = {file.path for child in self.children() for file in child.memory_maps()}
        return Path(next(path for path in files if "ananse-counts-" in path)).parent

    def wait_for_others_than(self, pids: set[int]) -> None:
        wait_until(lambda: len(self.pids()) == PROCESSES and not pids & self.pids())


@contextmanager
def many(settings: Settings) -> Iterator[Many]:
    with api_server(settings.model_copy(update={"api_workers": PROCESSES})) as server:
        running = Many(server.url, psutil.Process(psutil.Process(server.pid).ppid()))
        wait_until(lambda: len(running.children()) == PROCESSES)
        yield running


def test_all_processes_count_into_one_and_a_killed_one_stays_counted(settings: Settings) -> None:
    with many(settings) as api:
        for _ in range(20):
            api.ask(ROUTE)
        assert api.counted() == {20}
        before = api.looks("process_cpu_seconds_total")
        (memory, *_) = api.looks("process_resident_memory_bytes")
        assert memory > 1.5 * max(child.memory_info().rss for child in api.children())

        # Each of them has counted some.
        pids = api.pids()
        for child in api.children():
            child.kill()
        api.wait_for_others_than(pids)

        assert api.counted() == {20}
        cpu_s = before + api.looks("process_cpu_seconds_total")
        assert cpu_s == sorted(cpu_s)


def test_a_client_of_a_killed_process_waits_no_more(settings: Settings) -> None:
    with many(settings) as api:
        sent = httpx.post(api.url + "/v1/jobs", content=b"sound", headers={"Content-Type": "audio/wav"})
        path = sent.json()["links"]["events"]
        with httpx.Client(timeout=30) as client, client.stream("GET", api.url + path) as stream:
            # Kept: an iterator that is let go of hangs up, and that is noticed at once.
            heard = stream.iter_bytes()
            next(heard)
            assert set(api.looks("ananse_waiting_clients")) == {1}
            pids = api.pids()
            for child in api.children():
                child.kill()
            api.wait_for_others_than(pids)

            wait_until(lambda: set(api.looks("ananse_waiting_clients")) == {0})


def test_a_reload_forgets_nothing_and_the_end_leaves_nothing(settings: Settings) -> None:
    with many(settings) as api:
        api.ask(ROUTE)
        folder, pids = api.folder(), api.pids()
        os.kill(api.first.pid, signal.SIGHUP)
        api.wait_for_others_than(pids)

        assert api.counted() == {1}
        assert folder.exists()
    assert not folder.exists()
