"""Clients that hang up, are slow on purpose, come in crowds or change their mind: whoever behaves is
answered, nothing is left of the others, and a job has one end wherever one looks."""

import asyncio
import json
import random
import re
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import quantiles

import httpx
import pytest

from tests.chaos.api_process import ApiProcess
from tests.chaos.scene import say
from tests.chaos.slow_clients import SLOW, slow_clients, slow_reader
from tests.chaos.under_fire import (
    JOBS,
    UnderFire,
    begun_upload,
    connections,
    ended,
    http,
    listed,
    sound,
    submit,
)
from tests.support.waiting import wait_until
from tests.worker.receiver import receiver

pytestmark = [pytest.mark.redis, pytest.mark.service, pytest.mark.slow]

SEED = 20
ANSWERED_S = 5.0
"""On a machine of its own it is a tenth of that."""

POLLERS = 200
POLLED_S = 10.0
CANCELS = 200
PAUSE_S = 0.05
_LIVE = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
_UPLOAD = b"POST /v1/jobs?vad=off HTTP/1.1\r\nHost: x\r\nContent-Type: audio/wav\r\n"
_CHUNKED = _UPLOAD + b"Transfer-Encoding: chunked\r\n\r\n"
PIECES: Sequence[tuple[Sequence[bytes], list[int]]] = (
    ((_LIVE[:20], _LIVE[20:-1], _LIVE[-1:]), [200]),
    ((b"\r\n" + _LIVE,), [200]),
    ((_LIVE + _LIVE[:30], _LIVE[30:]), [200, 200]),
    ((_LIVE[:-4] + b"\r\nCookie: " + b"a" * 8000 + b"\r\nMore: " + b"a" * 8000, b"\r\n\r\n"), [200]),
    ((_LIVE[:-2] + b"Cookie: " + b"a" * 20_000 + b"\r\n\r\n",), [431]),
    ((_UPLOAD + b"Content-Length: 6\r\n\r\n", b"sou", b"nds"), [202]),
    ((_UPLOAD + b"Content-Length: 5\r\n\r\nsound" + _LIVE,), [202, 200]),
    ((_UPLOAD + b"Content-Length: 300000\r\n\r\n", *[bytes(50_000)] * 6), [202]),
    ((_UPLOAD + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n", b"sound"), [100, 202]),
    ((_CHUNKED, b"5\r\nso", b"und\r\n0\r\n\r\n"), [202]),
    ((_CHUNKED + b"5\r\nsound\r\n0\r\nMore: x\r\n\r\n", _LIVE), [202, 200]),
    ((_UPLOAD + b"Content-Length: 9999999999999\r\n\r\n",), [413]),
)
_RESET = struct.pack("ii", 1, 0)


def test_who_hangs_up_in_the_middle_leaves_nothing(fire: UnderFire) -> None:
    """Row 19: reset at a random byte."""
    say(f"seed {SEED}")
    chance = random.Random(SEED)
    with fire.api() as api, http(api) as client:
        submit(client, sound(0, 0.1))
        wait_until(lambda: connections(api) <= 1)
        files, handles = fire.files(), open_files(api)
        for _ in range(40):
            upload = begun_upload(fire, api, chance)
            upload.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            upload.close()
        wait_until(lambda: fire.files() == files, 60)
        # A few more connections to Redis may have been made.
        wait_until(lambda: open_files(api) <= handles + 10, 60)
        assert len(listed(client)) == 1


def open_files(api: ApiProcess) -> int:
    assert api.worker is not None
    return api.worker.num_fds()


@pytest.mark.parametrize("kind", [*SLOW, "readers"])
def test_a_hundred_slow_clients_hinder_nobody(fire: UnderFire, kind: str) -> None:
    """Row 20: more of them than there are threads; each is cut in the end, and its bytes are gone."""
    with fire.api() as api, http(api) as client:
        kinds = SLOW.get(kind)
        if kinds is None:
            kinds = (slow_reader(submit(client, sound(0, 300)).json()["links"]["audio"]),)
        with slow_clients(api.address, 100, *kinds):
            times = [seconds for number in range(8) for seconds in behave(api, number)]
            say(f"{kind}: p95 of {len(times)} answers {quantiles(times, n=20)[-1]:.3f} s")
            assert max(times) <= ANSWERED_S
            client.close()
            wait_until(lambda: connections(api) == 0, 30)
        assert fire.uploads() == set()


def behave(api: ApiProcess, number: int) -> Iterator[float]:
    """What clients do when they mean well; how long each answer took."""
    requests = (
        ("GET", "/livez", b""),
        ("GET", JOBS, b""),
        ("POST", JOBS, sound(number, 0.1)),
        ("POST", JOBS, sound(number, 10)),
    )
    for method, path, content in requests:
        began = time.monotonic()
        answer = httpx.request(
            method, api.url + path, content=content, headers={"Content-Type": "audio/wav"}, timeout=30
        )
        assert answer.status_code in (200, 202), answer.text
        yield time.monotonic() - began


def test_a_crowd_of_pollers_is_answered_while_the_worker_is_busy(fire: UnderFire) -> None:
    """T16: each asks every one to five seconds, and only for what is new."""
    say(f"seed {SEED}")
    with fire.worker(pace=0.04), fire.api() as api, http(api) as client:
        jobs = [submit(client, sound(number, 60)).json()["id"] for number in range(4)]
        polls = asyncio.run(poll_all(api, jobs))
        times = [poll.seconds for poll in polls]
        statuses = Counter(poll.status for poll in polls)
        say(f"{len(polls)} polls, p95 {quantiles(times, n=20)[-1]:.3f} s, {statuses}")
        assert statuses.keys() == {200, 304}
        assert len(polls) >= POLLERS * 2
        assert max(times) <= ANSWERED_S
        assert {ended(client, job_id)["status"] for job_id in jobs} == {"completed"}


@dataclass(frozen=True, slots=True)
class Poll:
    status: int
    seconds: float


async def poll_all(api: ApiProcess, jobs: Sequence[str]) -> list[Poll]:
    """Whatever keeps one of them from an answer is raised."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=api.url, limits=limits, timeout=30) as client:
        pollers = (poll(client, jobs[number % len(jobs)], number) for number in range(POLLERS))
        return [one for found in await asyncio.gather(*pollers) for one in found]


async def poll(client: httpx.AsyncClient, job_id: str, number: int) -> list[Poll]:
    chance, tag, found = random.Random(SEED + number), "", []
    until = time.monotonic() + POLLED_S
    while time.monotonic() < until:
        await asyncio.sleep(chance.uniform(1, 5))
        began = time.monotonic()
        answer = await client.get(f"{JOBS}/{job_id}", headers={"If-None-Match": tag} if tag else {})
        found.append(Poll(answer.status_code, time.monotonic() - began))
        tag = answer.headers["ETag"]
    return found


@dataclass(frozen=True, slots=True)
class Outcome:
    """What each place says of how a job ended; `events` are the types of its webhooks."""

    job: str
    listed: str
    events: tuple[str, ...]
    transcript: str


def test_a_cancel_near_the_end_has_one_outcome_everywhere(fire: UnderFire) -> None:
    """Row 30: as many jobs are canceled as there are in time, and nobody hears two stories."""
    say(f"seed {SEED}")
    with receiver() as hook, fire.worker(ANANSE_WEBHOOK_ALLOW="127.0.0.0/8"), fire.api() as api:
        race = CancelRace(api, hook.url())
        with ThreadPoolExecutor(8) as threads:
            answers = dict(threads.map(race.run, range(CANCELS)))
        wait_until(lambda: len(told(hook.requests)) == CANCELS, 300)
        with http(api) as client:
            first = outcomes(client, hook.requests)
            say(Counter(first.values()))
            assert {job_id: said(outcome) for job_id, outcome in first.items()} == answers
            ways = Counter(answers.values())
            assert min(ways["canceled"], ways["completed"]) >= CANCELS // 20, "all ended in one way"
            for _ in range(5):
                assert outcomes(client, hook.requests) == first


class CancelRace:
    """Jobs that are canceled about when they end: later after one that was canceled, sooner after one that
    had ended, so that each happens often however fast the machine is."""

    def __init__(self, api: ApiProcess, webhook_url: str) -> None:
        self._api = api
        self._webhook_url = webhook_url
        self._chance = random.Random(SEED)
        self._pause_s = 0.5

    def run(self, number: int) -> tuple[str, str]:
        """The job, and how it ended by the answer to the cancel."""
        with http(self._api) as client:
            job = submit(client, sound(number, 0.2), webhook_url=self._webhook_url).json()
            time.sleep(self._pause_s * self._chance.uniform(0.3, 1.7))
            answer = client.post(job["links"]["cancel"])
            if answer.status_code == 200:
                self._pause_s = min(2.0, self._pause_s * 1.1)
                return job["id"], answer.json()["status"]
            assert (answer.status_code, answer.json()["code"]) == (409, "job_ended"), answer.text
            self._pause_s /= 1.1
            return job["id"], "completed"


def outcomes(client: httpx.Client, requests: Sequence[bytes]) -> dict[str, Outcome]:
    events = told(requests)
    return {
        job["id"]: Outcome(
            client.get(job["links"]["self"]).json()["status"],
            job["status"],
            tuple(events.get(job["id"], ())),
            transcript_of(client.get(job["links"]["transcript"])),
        )
        for job in listed(client)
    }


def told(requests: Sequence[bytes]) -> dict[str, list[str]]:
    """Types of all webhooks that came, by job."""
    found: dict[str, list[str]] = {}
    for request in tuple(requests):
        event = json.loads(request.partition(b"\r\n\r\n")[2])
        found.setdefault(event["data"]["id"], []).append(event["type"])
    return found


def transcript_of(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    return "canceled" if answer.json()["partial"] else "completed"


def said(outcome: Outcome) -> str:
    """The one word that all places agree on, else all they say."""
    words = {outcome.job, outcome.listed, outcome.transcript}
    words |= {event.removeprefix("job.") for event in outcome.events} or {"nothing"}
    return words.pop() if len(words) == 1 and len(outcome.events) == 1 else str(outcome)


def test_requests_that_come_in_pieces_are_whole_requests(fire: UnderFire) -> None:
    """The other side of row 20: nobody who means well is kept waiting for the end of our patience."""
    with fire.api(upload_idle_s=60) as api:
        for pieces, statuses in PIECES:
            with socket.create_connection(api.address, timeout=10) as client:
                for piece in pieces:
                    client.sendall(piece)
                    time.sleep(PAUSE_S)
                assert answered(client, len(statuses)) == statuses, pieces


def answered(client: socket.socket, count: int) -> list[int]:
    """The status of so many answers, or of fewer when there are no more."""
    come, statuses = b"", []
    while len(statuses) < count and (chunk := client.recv(65536)):
        come += chunk
        statuses = [int(found) for found in re.findall(rb"HTTP/1\.1 ([0-9]{3})", come)]
    return statuses
