"""Ten receivers that hold whoever calls them, and fifty that do not: a real worker serves the fifty as if the
ten were not there. Times are scaled: an attempt has 1.5 s instead of 15, pauses are tenths of a second."""

import asyncio
import json
import random
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path

import psutil
import pytest
from standardwebhooks import Webhook

from shared.fleet import Fleet
from shared.ledger import Ledger
from shared.redis_store import RedisStore
from shared.settings import Settings
from tests.support.jobs import submit
from tests.support.waiting import wait_until
from tests.support.webhook_check import is_genuine
from tests.support.worker_context import SECRET
from tests.support.worker_process import PLAIN, worker_process

pytestmark = [pytest.mark.redis, pytest.mark.service, pytest.mark.slow]

HEALTHY = 50
EVENTS = 500
HOSTILE_EVENTS = 100
PER_S = 40
TIMEOUT_S = 1.5
GROWTH_BYTES = 60 * 2**20


@dataclass
class Street:
    """Many servers at one port: each has an address of 127.0.0.0/8 of its own, and the last number of it is
    its way to answer. `came_at` is by message."""

    port: int = 0
    came_at: dict[str, float] = field(default_factory=dict)
    bodies: dict[str, set[bytes]] = field(default_factory=lambda: defaultdict(set))
    forged: int = 0
    redirected: int = 0

    def healthy(self, number: int) -> str:
        return f"http://127.1.0.{number + 1}:{self.port}/hook"

    def hostile(self, number: int) -> str:
        scheme = "https" if number == 6 else "http"
        return f"{scheme}://127.2.0.{number}:{self.port}/hook"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host = writer.get_extra_info("sockname")[0].split(".")
        try:
            if host[1] == "9":
                self.redirected += 1
            elif host[1] == "1":
                await self._take(reader)
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
            else:
                async for content in _torment(int(host[3]), self.port):
                    writer.write(content)
                    await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _take(self, reader: asyncio.StreamReader) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:-2]
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head)}
        body = await reader.readexactly(int(headers["content-length"]))
        Webhook(SECRET).verify(body, headers)
        self.forged += not is_genuine(SECRET, headers, body, time.time())
        self.came_at.setdefault(headers["webhook-id"], time.monotonic())
        self.bodies[headers["webhook-id"]].add(body)


async def _torment(kind: int, port: int) -> AsyncIterator[bytes]:
    """What each of the ten does."""
    drops = {1: b"", 2: b"a", 3: b"z", 9: b"HTTP/1.1 100 Continue\r\n\r\n"}
    if kind in drops:
        yield {2: b"HTTP/1.1 200 OK\r\nx: ", 3: b"HTTP/1.1 200 OK\r\n\r\n"}.get(kind, b"")
        while True:
            await asyncio.sleep(0.1)
            yield drops[kind]
    if kind == 4:
        yield b"HTTP/1.1 500 No\r\ncontent-length: 1000000000\r\n\r\n"
        while True:
            yield bytes(2**16)
    if kind == 5:
        yield b"HTTP/1.1 200 OK\r\n"
        while True:
            yield b"x-more: and more\r\n" * 1000
    if kind == 7:
        yield f"HTTP/1.1 301 Moved\r\nlocation: http://127.9.0.1:{port}/\r\n\r\n".encode()
    if kind == 8:
        yield b"HTTP/1.1 500 No\r\ncontent-encoding: gzip\r\n\r\n" + b"\x1f\x8b" + bytes(10_000)
    yield b"not HTTP at all"


@contextmanager
def street() -> Iterator[Street]:
    made, loop = Street(), asyncio.new_event_loop()

    def run() -> None:
        loop.run_forever()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0.1))
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    server = asyncio.run_coroutine_threadsafe(asyncio.start_server(made.serve, "0.0.0.0", 0), loop).result()
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def patient(settings: Settings) -> Settings:
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    ours = {
        "webhook_allow": (ip_network("127.0.0.0/8"),),
        "webhook_timeout_s": TIMEOUT_S,
        "webhook_retry_s": (0.2, 0.5, 0.5),
        "webhook_secret": SECRET,
        "sweep_s": 0.2,
        "hint_s": 5,
    }
    return Settings(**(given | ours))  # type: ignore[arg-type]


def end(store: RedisStore, job_id: str, url: str) -> None:
    submit(store, job_id, webhook_url=url)
    body = json.dumps({"type": "job.canceled", "data": {"id": job_id}}).encode()
    assert Ledger(store).cancel(job_id, webhook=body, retention_s=600)


def test_healthy_receivers_do_not_feel_the_hostile_ones(
    settings: Settings, store: RedisStore, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    own, began = patient(settings), {}
    with street() as servers, worker_process(own, Fleet(store), tmp_path / "worker.log", PLAIN) as worker:
        process = psutil.Process(worker.pid)
        for number in range(HOSTILE_EVENTS):
            end(store, f"job_h{number}", servers.hostile(number % 10 + 1))
        before = process.memory_info().rss
        for number in range(EVENTS):
            time.sleep(random.Random(number).expovariate(PER_S))
            began[f"msg_job_{number}_deliver-0"] = time.monotonic()
            end(store, f"job_{number}", servers.healthy(number % HEALTHY))
        wait_until(lambda: len(servers.came_at) == EVENTS, 60)
        growth = process.memory_info().rss - before
        hostile = [store.client.lrange(store.key("deliveries", f"job_h{n}"), 0, -1) for n in range(20)]

    delays = sorted(servers.came_at[name] - at for name, at in began.items())
    attempts = [json.loads(row) for rows in hostile for row in rows]
    median_s, p95_s = (delays[EVENTS * percent // 100] for percent in (50, 95))
    figures = f"p50 {median_s:.3f} s, p95 {p95_s:.3f} s, worker grew by {growth / 2**20:.0f} MiB"
    record_property("figures", figures)
    assert p95_s <= 2.0, figures
    assert (servers.forged, servers.redirected) == (0, 0)
    assert all(len(bodies) == 1 for bodies in servers.bodies.values())
    assert attempts
    assert max(attempt["duration_s"] for attempt in attempts) <= TIMEOUT_S + 1
    assert growth <= GROWTH_BYTES


def test_one_that_never_answers_holds_up_nobody(
    settings: Settings, store: RedisStore, tmp_path: Path
) -> None:
    """Two hundred for it are before the one of another."""
    own, log = patient(settings), tmp_path / "worker.log"
    with street() as servers, worker_process(own, Fleet(store), log, PLAIN):
        for number in range(200):
            end(store, f"job_h{number}", servers.hostile(1))
        began = time.monotonic()
        end(store, "job_quick", servers.healthy(1))
        wait_until(lambda: servers.came_at, 30)
        waited_s = time.monotonic() - began

    assert waited_s < TIMEOUT_S
