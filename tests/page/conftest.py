"""The page in a real browser: with a hand that moves the jobs, or with a worker that spells what it hears.

Playwright lives as long as the tests of this folder: while it does, its event loop is the thread's own."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import BrowserContext

from shared.blobs import open_blobs
from shared.fleet import Fleet
from shared.job_store import JobStore
from shared.key_ring import KeyRing
from shared.ledger import Ledger
from shared.redis_store import RedisStore, connect
from shared.settings import Settings
from tests.support.api_server import api_server
from tests.support.browser import Chromium, Tab, chromium, new_tab
from tests.support.keys import ring_of
from tests.support.redis_server import redis_server, require_binary
from tests.support.service import SAMPLES
from tests.support.worker_hand import WorkerHand
from tests.support.worker_process import PLAIN, worker_process

OpenTab = Callable[..., Tab]


@dataclass(frozen=True, slots=True)
class Served:
    url: str
    jobs: JobStore
    hand: WorkerHand
    ring: KeyRing

    def send(self, name: str = "talk.flac", **fields: str) -> str:
        """A job, by the API; its id."""
        content = (SAMPLES / "short-1.flac").read_bytes()
        files = {"file": (name, content)}
        answer = httpx.post(f"{self.url}/v1/jobs", data={"reuse": "off"} | fields, files=files)
        assert answer.status_code == 202, answer.text
        job_id: str = answer.json()["id"]
        return job_id

    def job(self, job_id: str) -> dict[str, Any]:
        found: dict[str, Any] = httpx.get(f"{self.url}/v1/jobs/{job_id}").json()
        return found


@pytest.fixture(scope="package")
def browser() -> Iterator[Chromium]:
    with chromium() as found:
        yield found


@pytest.fixture
def context(browser: Chromium) -> Iterator[BrowserContext]:
    found = browser.visitor()
    found.grant_permissions(["clipboard-read", "clipboard-write", "microphone"])
    yield found
    found.close()


@pytest.fixture
def open_tab(context: BrowserContext) -> Iterator[OpenTab]:
    """Opens the page at a hash. At the end no tab may have complained of anything."""
    tabs: list[Tab] = []

    def open_at(url: str, place: str = "#/") -> Tab:
        tab = new_tab(context)
        tabs.append(tab)
        tab.page.goto(f"{url}/{place}")
        return tab

    yield open_at
    assert [wrong for tab in tabs for wrong in tab.wrong] == []


@pytest.fixture(scope="package")
def served(browser: Chromium, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """No worker process: jobs stay as the tests move them. Tests share it: there is more than their own."""
    folder = tmp_path_factory.mktemp("served")
    with redis_server(require_binary()) as url, connect(url) as redis:
        settings = Settings(redis_url=url, blob_url=f"file://{folder}/blobs", state_dir=folder / "state")
        with api_server(settings) as server:
            yield served_at(server.url, settings, RedisStore(redis))


@pytest.fixture
def fresh(store: RedisStore, settings: Settings) -> Iterator[Served]:
    """One of the test's own."""
    with api_server(settings) as server:
        yield served_at(server.url, settings, store)


@pytest.fixture(scope="package")
def working(browser: Chromium, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    yield from _working(tmp_path_factory.mktemp("spelling"), PLAIN)


@pytest.fixture(scope="package")
def hearing(browser: Chromium, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """With the bundled model."""
    yield from _working(tmp_path_factory.mktemp("hearing"), ("worker",))


def _working(folder: Path, module: tuple[str, ...]) -> Iterator[Served]:
    with redis_server(require_binary()) as url, connect(url) as redis:
        settings = Settings(
            redis_url=url, blob_url=f"file://{folder}/blobs", state_dir=folder / "state", max_wait_s=5
        )
        store = RedisStore(redis)
        with (
            api_server(settings) as server,
            worker_process(settings, Fleet(store), folder / "worker.log", module),
        ):
            yield served_at(server.url, settings, store)


def served_at(url: str, settings: Settings, store: RedisStore) -> Served:
    blobs = open_blobs(settings)
    return Served(url, JobStore(store), WorkerHand(Ledger(store), Fleet(store), blobs), ring_of(store, blobs))
