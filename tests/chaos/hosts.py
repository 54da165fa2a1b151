"""`python -m tests.chaos.hosts --partitions 30`: a worker loses Redis and comes back, again and again.

Redis, the API and two workers are hosts with addresses of their own; the disk is shared. While jobs keep
coming, one worker after the other is cut off for longer than a lease: the other one takes its steps over, and
what the first still wants to say once it is back is refused.
"""

import argparse
import json
import random
import secrets
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import ip_network
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np
from numpy.typing import NDArray

from shared.job import Status
from shared.redis_store import RedisStore, connect
from shared.settings import Settings
from tests.chaos.namespaces import Cut, Host, NotPermitted, network
from tests.chaos.scene import encoded, impatient, noise, say
from tests.chaos.stations import Line, Station
from tests.support.api_server import api_server
from tests.support.redis_server import find_binary, running
from tests.support.service import Service
from tests.support.waiting import PAUSE_S, wait_until
from tests.worker.receiver import Receiver, receiver

PATIENCE_S = 60.0
"""Longest wait for a takeover, and for the healed worker to work again."""

_SOUNDS = 10
_BACKLOG = 4
_PORT = "6379"
_WAIT_S = 120.0
_STARTS = 3
"""One for the undisturbed run, two for the workers."""

T = TypeVar("T")


class Client:
    """Submits over HTTP, and remembers for which sound it was promised a transcript."""

    def __init__(self, api_url: str, service: Service, hook: Receiver, address: str, seed: int) -> None:
        self.promised: dict[str, int] = {}
        self.called_back: set[str] = set()
        self._http = httpx.Client(base_url=api_url, timeout=30)
        self._service = service
        self._hook = hook
        self._webhook_url = hook.url(address)
        self._seed = seed
        self._numbers = count()
        self._open: set[str] = set()

    def close(self) -> None:
        self._http.close()

    def submit(self, sound: int, webhook_url: str | None = None) -> str:
        """Never the same bytes twice: no result may come from an earlier job."""
        query = {"vad": "off"} | ({"webhook_url": webhook_url} if webhook_url else {})
        answer = self._http.post(
            "/v1/jobs",
            params=query,
            content=encoded(self._sound(sound), f"{next(self._numbers)}"),
            headers={"content-type": "audio/wav"},
        )
        answer.raise_for_status()
        return str(answer.json()["id"])

    def keep_busy(self) -> None:
        """Tops the unfinished jobs up to a few.

        Not all have a webhook: jobs of four messages each would go to two waiting workers in step, and one of
        them would get all the parts.
        """
        self._open = {job_id for job_id in self._open if not self._status(job_id).is_terminal}
        while len(self._open) < _BACKLOG:
            number = len(self.promised)
            sound = number % _SOUNDS
            is_called_back = number % 3 > 0
            job_id = self.submit(sound, self._webhook_url if is_called_back else None)
            self.promised[job_id] = sound
            self._open.add(job_id)
            if is_called_back:
                self.called_back.add(job_id)

    def transcript(self, job_id: str) -> Any:
        answer = self._http.get(f"/v1/jobs/{job_id}/transcript", params={"format": "json"})
        answer.raise_for_status()
        whole = answer.json()
        return whole["text"], whole["duration_s"], whole["segments"]

    def undisturbed(self) -> dict[int, Any]:
        """What becomes of every sound when nothing happens."""
        job_ids = {sound: self.submit(sound) for sound in range(_SOUNDS)}
        wait_until(lambda: all(self._status(job_id).is_terminal for job_id in job_ids.values()), _WAIT_S)
        return {sound: self.transcript(job_id) for sound, job_id in job_ids.items()}

    def bodies(self) -> dict[str, set[bytes]]:
        """What the receiver was sent, by job."""
        bodies: defaultdict[str, set[bytes]] = defaultdict(set)
        for request in list(self._hook.requests):
            body = request.partition(b"\r\n\r\n")[2]
            bodies[json.loads(body)["data"]["id"]].add(body)
        return bodies

    def wait_for_the_rest(self) -> None:
        """Until all have ended and all receivers know, or until time is over: the figures tell."""
        deadline = time.monotonic() + _WAIT_S
        while time.monotonic() < deadline and not self._all_told():
            time.sleep(0.2)

    def statuses(self) -> dict[str, Status]:
        return {job_id: self._status(job_id) for job_id in self.promised}

    def _all_told(self) -> bool:
        ended = all(status.is_terminal for status in self.statuses().values())
        return ended and self.called_back <= self.bodies().keys()

    def _status(self, job_id: str) -> Status:
        return self._service.jobs.get(job_id).status

    def _sound(self, sound: int) -> NDArray[np.int16]:
        return noise(20.0 + sound, seed=self._seed + sound)


@dataclass(frozen=True, slots=True)
class Partition:
    """How it went: seconds until the other worker took the step over, and from healing until this one worked
    again; `ending` is what became of its own claim."""

    how: Cut
    lasted_s: float
    takeover_s: float
    back_s: float
    ending: str

    def __str__(self) -> str:
        return (
            f"{self.how}: lasted {self.lasted_s:.1f} s, taken over after {self.takeover_s:.1f} s, "
            f"{self.ending}, back after {self.back_s:.1f} s"
        )


@dataclass(frozen=True, slots=True)
class Figures:
    """Jepsen's words for jobs, by id, and how the partitions went. `doubled`: more than one webhook body;
    `untold`: none
    where one was asked for."""

    seed: int
    jobs: int
    partitions: tuple[Partition, ...]
    lost: tuple[str, ...]
    failed: tuple[str, ...]
    wrong: tuple[str, ...]
    doubled: tuple[str, ...]
    untold: tuple[str, ...]
    restarts: int

    @property
    def late(self) -> tuple[Partition, ...]:
        """A worker that came back and was let end what another had taken over."""
        return tuple(one for one in self.partitions if one.ending == "step_done")

    @property
    def is_clean(self) -> bool:
        return not (self.lost or self.failed or self.wrong or self.doubled or self.untold or self.late)

    def __str__(self) -> str:
        endings = Counter(one.ending for one in self.partitions)
        return (
            f"seed {self.seed}: {len(self.partitions)} partitions, {self.jobs} jobs: {len(self.lost)} lost, "
            f"{len(self.failed)} failed, {len(self.wrong)} wrong, {len(self.doubled)} doubled, "
            f"{len(self.untold)} untold, {len(self.late)} late writes; own claims: {dict(endings)}; "
            f"takeover at most {max(one.takeover_s for one in self.partitions):.1f} s, back at most "
            f"{max(one.back_s for one in self.partitions):.1f} s, {self.restarts} restarts"
        )


@dataclass(frozen=True, slots=True)
class Scene:
    redis: Host
    workers: tuple[Station, Station]
    client: Client

    def partition(self, victim: Station, other: Station, how: Cut, longer_s: float) -> Partition:
        """Cuts off a worker that has just begun a part, and heals it `longer_s` after the takeover."""
        name = victim.host.namespace
        claim = self._wait(victim.just_begun, f"{name} begins no part")
        began = time.time()
        victim.host.cut(self.redis, how)
        try:
            taken = self._wait(lambda: _same_step(other.claims(began), claim), "nobody takes the step over")
            until = time.time() + longer_s
            self._wait(lambda: time.time() > until, "the clock stands still", longer_s)
        finally:
            victim.host.heal(self.redis, how)
        healed = time.time()
        ending = self._wait(lambda: victim.ending_of(claim), f"{name} never lets its step go")
        back = self._wait(lambda: next(iter(victim.claims(healed)), None), f"{name} stays deaf after {how}")
        return Partition(how, healed - began, taken.at - began, back.at - healed, ending.event)

    def _wait(self, found: Callable[[], T | None], complaint: str, longer_s: float = 0.0) -> T:
        """What `found` gives once it gives something; meanwhile there is always work."""
        deadline = time.monotonic() + PATIENCE_S + longer_s
        while not (value := found()):
            assert time.monotonic() < deadline, complaint
            self.client.keep_busy()
            for worker in self.workers:
                worker.start_if_ended()
            time.sleep(PAUSE_S)
        return value


def _same_step(claims: list[Line], claim: Line) -> Line | None:
    return next((line for line in claims if line.names == claim.names), None)


@contextmanager
def _scene(folder: Path, binary: Path, seed: int) -> Iterator[tuple[Scene, dict[int, Any]]]:
    """All hosts up; and what becomes of every sound while nothing happens."""
    with ExitStack() as stack:
        net = stack.enter_context(network())
        redis, api, *places = (net.add(name) for name in ("redis", "api", "east", "west"))
        open_to_all = ("--port", _PORT, "--bind", redis.address, "--protected-mode", "no")
        with redis.inside():
            server = stack.enter_context(running(binary, "--appendonly", "yes", *open_to_all))
        near = stack.enter_context(connect(server.url))
        settings = impatient(
            f"redis://{redis.address}:{_PORT}/0", folder, host=api.address, trusted_network=True, batch_size=1
        )
        # This process talks to Redis over its socket, which no partition touches.
        service = Service(impatient(server.url, folder), RedisStore(near))
        with api.inside():
            served = stack.enter_context(api_server(settings))
        hook = stack.enter_context(receiver(host=net.address))
        client = Client(served.url, service, hook, net.address, seed)
        stack.callback(client.close)
        east, west = (
            Station(place, folder / f"{place.namespace}.log", _with_webhooks(settings), service.fleet)
            for place in places
        )
        for worker in (east, west):
            stack.callback(worker.close)
        east.start(pace="0")
        undisturbed = client.undisturbed()
        east.stop()
        for worker in (east, west):
            worker.start()
        yield Scene(redis, (east, west), client), undisturbed


def _with_webhooks(settings: Settings) -> Settings:
    return settings.model_copy(
        update={
            "webhook_allow": (ip_network("10.0.0.0/8"),),
            "webhook_retry_s": (0.2,) * 20,
            "webhook_timeout_s": 3,
        }
    )


def run(folder: Path, binary: Path, partitions: int, longest_s: float, seed: int) -> Figures:
    """Each worker in turn, each kind of cut in turn; healed up to `longest_s` after the takeover."""
    dice = random.Random(seed)
    with _scene(folder, binary, seed) as (scene, undisturbed):
        done: list[Partition] = []
        for number in range(partitions):
            victim, other = scene.workers[:: 1 if number % 2 else -1]
            how = list(Cut)[number % len(Cut)]
            done.append(scene.partition(victim, other, how, dice.uniform(0, longest_s)))
            say(f"{number + 1}/{partitions} {done[-1]}")
        scene.client.wait_for_the_rest()
        return _figures(scene, undisturbed, tuple(done), seed)


def _figures(
    scene: Scene, undisturbed: dict[int, Any], partitions: tuple[Partition, ...], seed: int
) -> Figures:
    client = scene.client
    statuses, bodies = client.statuses(), client.bodies()
    lost = [job_id for job_id, status in statuses.items() if not status.is_terminal]
    completed = [job_id for job_id, status in statuses.items() if status is Status.COMPLETED]
    return Figures(
        seed=seed,
        jobs=len(statuses),
        partitions=partitions,
        lost=tuple(lost),
        failed=tuple(sorted(statuses.keys() - {*completed, *lost})),
        wrong=tuple(
            job_id
            for job_id in completed
            if client.transcript(job_id) != undisturbed[client.promised[job_id]]
        ),
        doubled=tuple(job_id for job_id in statuses if len(bodies.get(job_id, ())) > 1),
        untold=tuple(sorted(client.called_back - bodies.keys())),
        restarts=sum(worker.starts for worker in scene.workers) - _STARTS,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--partitions", type=int, default=30)
    parser.add_argument("--longest-s", type=float, default=15, help="longest stay away after the takeover")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**31))
    given = parser.parse_args()
    binary = find_binary()
    if binary is None:
        sys.exit("no redis-server or valkey-server is installed")
    with tempfile.TemporaryDirectory(prefix="ananse-hosts-") as name:
        try:
            figures = run(Path(name), binary, given.partitions, given.longest_s, given.seed)
        except NotPermitted as reason:
            sys.exit(str(reason))
    say(figures)
    sys.exit(not figures.is_clean)


if __name__ == "__main__":
    main()
