"""Workers that are killed, frozen, stopped and replaced, and what became of the jobs they were given."""

import json
import os
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from shared.job import Job, Status, VadOptions
from shared.settings import Settings
from tests.chaos.sounds import Sound
from tests.support.service import Service
from tests.support.waiting import wait_until
from tests.support.worker_process import PLAIN, WorkerProcess
from tests.worker.receiver import Receiver

LEASE_S = 2.0
SWEEP_S = 0.2
RETIRE_S = 60.0
_LOOK_S = 0.1
_TRIES = 20
_LET_GO = (
    "step_done",
    "step_fenced",
    "step_handed_back",
    "step_put_off",
    "step_tried_again",
    "step_left_to_sweeper",
    "job_failed",
    "job_deleted",
)


def impatient(settings: Settings, **more: object) -> Settings:
    """A dead worker is noticed after two seconds, webhooks may go to this machine, a part is short."""
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    ours = {
        "lease_s": LEASE_S,
        "hint_s": 1,
        "sweep_s": SWEEP_S,
        "part_s": 30,
        "batch_size": 2,
        "webhook_allow": (ip_network("127.0.0.0/8"),),
        "webhook_retry_s": (0.1, 0.1),
        "webhook_secret": "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
    }
    return Settings(**(given | ours | more))  # type: ignore[arg-type]


class Crew:
    """`pace` is how long the model takes for a second of sound, in seconds."""

    def __init__(self, service: Service, folder: Path, pace: float) -> None:
        self.service = service
        self.pace = pace
        self.workers: list[WorkerProcess] = []
        self._folder = folder
        self._tally = folder / "windows.txt"
        self._logs: list[Path] = []

    def hire(self, count: int = 1, **more: str) -> list[WorkerProcess]:
        """Workers that are ready for work; `more` are further environment variables."""
        new = [self._start(more) for _ in range(count)]
        for worker in new:
            worker.wait_ready()
        return new

    def _start(self, more: Mapping[str, str]) -> WorkerProcess:
        command = (*PLAIN, "--tally", str(self._tally), "--pace", str(self.pace))
        log = self._folder / f"worker-{len(self._logs)}.log"
        worker = WorkerProcess(self.service.settings, self.service.fleet, log, command, **more)
        self._logs.append(log)
        self.workers.append(worker)
        return worker

    def dismiss(self, worker: WorkerProcess) -> None:
        """kill -9, unless it is dead already."""
        self.workers.remove(worker)
        worker.close()

    def retire(self, worker: WorkerProcess) -> int:
        """SIGTERM; the exit status."""
        self.workers.remove(worker)
        try:
            return worker.stop(RETIRE_S)
        finally:
            worker.close()

    def replace_dead(self) -> int:
        """A new worker for each that died; how many. They may be dead again before anybody looks."""
        dead = [worker for worker in self.workers if has_ended(worker)]
        for worker in dead:
            self.dismiss(worker)
            self._start({})
        return len(dead)

    def submit(self, recording: Sound, **options: object) -> str:
        """A job of all that is on the recording, without detection of speech."""
        return self.service.submit(recording.path, **({"vad": VadOptions(enabled=False)} | options))

    def see_through(self, job_ids: Iterable[str], timeout_s: float = 120) -> dict[str, Job]:
        """All jobs once they have ended; workers that die meanwhile are replaced. `timeout_s` is for any of
        them to get on."""
        deadline, before = time.monotonic() + timeout_s, None
        while True:
            jobs = {job_id: self.service.jobs.get(job_id) for job_id in job_ids}
            running = [job for job in jobs.values() if not job.status.is_terminal]
            if not running:
                return jobs
            if (progress := [(job.done_s, job.attempt) for job in jobs.values()]) != before:
                deadline, before = time.monotonic() + timeout_s, progress
            assert time.monotonic() < deadline, f"{len(running)} jobs have not ended: {running[0]}"
            self.replace_dead()
            time.sleep(_LOOK_S)

    def windows(self) -> Counter[str]:
        """How often the model was given each window, by its text."""
        return Counter(self._tally.read_text().split("\n")[:-1] if self._tally.exists() else ())

    def log(self, event: str, worker: WorkerProcess | None = None) -> list[dict[str, Any]]:
        """What the workers, or one of them, wrote down under this name."""
        found = []
        for path in [worker.log] if worker else self._logs:
            for line in path.read_text().splitlines():
                with suppress(ValueError):
                    row = json.loads(line)
                    if isinstance(row, dict) and row.get("event") == event:
                        found.append(row)
        return found

    def held(self, worker: WorkerProcess, kind: str) -> set[tuple[str, str]]:
        """Job and step of what the worker has claimed and not let go of; `kind` is how the step begins."""
        balance = Counter[tuple[str, str]]()
        for event in ("step_claimed", *_LET_GO):
            for row in self.log(event, worker):
                balance[row["job_id"], row["step"]] += 1 if event == "step_claimed" else -1
        return {at for at, count in balance.items() if count > 0 and at[1].startswith(kind)}

    def caught(self, worker: WorkerProcess, kind: str) -> set[tuple[str, str]]:
        """Stops the worker dead (SIGSTOP) while it holds steps of this kind: these."""
        for _ in range(_TRIES):
            wait_until(lambda: self.held(worker, kind), 30)
            worker.signal(signal.SIGSTOP)
            if held := self.held(worker, kind):
                return held
            worker.signal(signal.SIGCONT)
        raise AssertionError("the worker was never caught at work")

    def close(self) -> None:
        for worker in self.workers:
            worker.close()


@contextmanager
def crew(service: Service, folder: Path, pace: float = 0.0) -> Iterator[Crew]:
    """Nobody is left over, however the block ends."""
    made = Crew(service, folder, pace)
    try:
        yield made
    finally:
        made.close()


def fall_due(service: Service, job_ids: Iterable[str]) -> None:
    """As if the retention of these ended jobs were over."""
    for job_id in job_ids:
        service.store.client.hset(service.store.key("job", job_id), "expires_at", 1)
        service.store.client.zadd(service.store.key("expiry"), {job_id: 1}, xx=True)


def has_ended(worker: WorkerProcess) -> bool:
    return os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def written_at(row: Mapping[str, Any]) -> float:
    """When a line was logged, in seconds since 1970."""
    return datetime.fromisoformat(row["timestamp"]).timestamp()


def assert_all_right(service: Service, given: Mapping[str, Sound], jobs: Mapping[str, Job]) -> None:
    """Every job completed, with the transcript that its recording alone has."""
    for job_id, recording in given.items():
        job = jobs[job_id]
        assert job.status is Status.COMPLETED, (job_id, job.attempt, job.failure)
        assert service.transcript(job_id).text == recording.text, job_id


def assert_one_body_each(hook: Receiver, job_ids: Iterable[str], timeout_s: float = 30) -> None:
    """The receiver was told of every job and of no other, of each in one body under one id."""
    expected = set(job_ids)
    wait_until(lambda: {job_id for job_id, _ in _deliveries(hook)} >= expected, timeout_s)
    bodies: defaultdict[str, set[bytes]] = defaultdict(set)
    for job_id, request in _deliveries(hook):
        bodies[job_id].add(webhook_id(request) + body_of(request))
    assert bodies.keys() == expected
    assert [job_id for job_id, seen in bodies.items() if len(seen) > 1] == []


def body_of(request: bytes) -> bytes:
    return request.partition(b"\r\n\r\n")[2]


def webhook_id(request: bytes) -> bytes:
    head = request.partition(b"\r\n\r\n")[0]
    return next(line for line in head.lower().split(b"\r\n") if line.startswith(b"webhook-id:"))


def _deliveries(hook: Receiver) -> list[tuple[str, bytes]]:
    return [(json.loads(body_of(request))["data"]["id"], request) for request in list(hook.requests)]
