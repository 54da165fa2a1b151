"""Clients of the service that cost next to nothing themselves: they submit, and they poll when it is time."""

import asyncio
import json
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import psutil

from tests.support.api_server import ApiServer

PERIOD_S = 5.0
"""How often a poller asks."""

_ANSWER_S = 60.0
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Polls:
    """`seconds` of each answered poll since it was due: a late one is not excused by the one before it.

    `unanswered` had another answer than 200, or were too late to be sent; shares are of one core.
    """

    seconds: tuple[float, ...]
    unanswered: int
    connections: int
    client_share: float
    api_share: float


class Client:
    """An HTTP client on a plain socket, kept for as long as the server keeps it: the service that is measured
    runs beside it and needs the processor more."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname or "", parts.port or 80)
        self._writer: asyncio.StreamWriter | None = None
        self.connections = 0

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Status and body. Raises OSError, IncompleteReadError."""
        async with asyncio.timeout(_ANSWER_S):
            if self._writer is not None:
                try:
                    return await self._exchange(self._writer, request)
                except (ConnectionError, asyncio.IncompleteReadError):
                    # The server may end an idle connection at any time; that was no answer.
                    self.close()
            self._reader, self._writer = await asyncio.open_connection(*self._address)
            self.connections += 1
            return await self._exchange(self._writer, request)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    async def _exchange(self, writer: asyncio.StreamWriter, request: bytes) -> tuple[int, bytes]:
        writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(head)
        body = await self._reader.readexactly(int(length[1]) if length else 0)
        if b"connection: close" in head.lower():
            self.close()
        return int(head.split(maxsplit=2)[1]), body


async def submit_all(
    url: str, bodies: Iterable[bytes], clients: int, query: str = ""
) -> list[tuple[str, float]]:
    """Ids, and seconds each took. A client sends the next as soon as its last was taken."""
    waiting = iter(bodies)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_submit(url, waiting, query)) for _ in range(clients)]
    return [taken for task in tasks for taken in task.result()]


async def _submit(url: str, waiting: Iterator[bytes], query: str) -> list[tuple[str, float]]:
    client, taken = Client(url), []
    head = f"POST /v1/jobs?{query} HTTP/1.1\r\nHost: localhost\r\nContent-Type: audio/wav\r\n"
    for body in waiting:
        request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        began = time.perf_counter()
        status, answer = await client.ask(request)
        took_s = time.perf_counter() - began
        assert status == 202, answer.decode()
        taken.append((json.loads(answer)["id"], took_s))
    client.close()
    return taken


async def poll_all(api: ApiServer, job_ids: Sequence[str], duration_s: float) -> Polls:
    """A poller for each job; their beginnings are spread over the first period."""
    began, client_s, api_s = time.perf_counter(), time.process_time(), _cpu_s(api.pid)
    clients = [Client(api.url) for _ in job_ids]
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(
                _poll(client, job_id, began + index * PERIOD_S / len(job_ids), began + duration_s)
            )
            for index, (client, job_id) in enumerate(zip(clients, job_ids, strict=True))
        ]
    took_s = time.perf_counter() - began
    client_share, api_share = (time.process_time() - client_s) / took_s, (_cpu_s(api.pid) - api_s) / took_s
    polled = [seconds for task in tasks for seconds in task.result()]
    answered = tuple(seconds for seconds in polled if seconds is not None)
    connections = sum(client.connections for client in clients)
    return Polls(answered, len(polled) - len(answered), connections, client_share, api_share)


def _cpu_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


async def _poll(client: Client, job_id: str, due: float, end: float) -> list[float | None]:
    """Seconds until each poll's answer; None where there was none."""
    request = f"GET /v1/jobs/{job_id} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    polled: list[float | None] = []
    while due < end:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        is_answered = time.perf_counter() < end and await _is_answered(client, request)
        polled.append(time.perf_counter() - due if is_answered else None)
        due += PERIOD_S
    client.close()
    return polled


async def _is_answered(client: Client, request: bytes) -> bool:
    try:
        status, _ = await client.ask(request)
    except (OSError, asyncio.IncompleteReadError):
        client.close()
        return False
    return status == 200
