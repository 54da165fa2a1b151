"""Files through the real API and a real worker, and what must be true of every answer about each."""

import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from shared.errors import Internal, JobError, RequestError, WorkerCrashed
from shared.fleet import Fleet
from shared.redis_store import RedisStore
from shared.settings import Settings
from tests.support.api_server import api_server
from tests.support.codes import below, check_detail
from tests.support.worker_process import PLAIN, WorkerProcess, worker_process

MODEL = "spelling"
CLIENTS = 6
END_S = 60.0
OURS = {Internal.code, WorkerCrashed.code}
"""No file may bring these about."""

FAILURES = {kind.code for kind in below(JobError)} - OURS
REFUSALS = {RequestError.code} | {kind.code for kind in below(RequestError)}
_SECRETS = re.compile(r"\.venv|site-packages|scratch|decoder/|Traceback|/proc/|/tmp/")
"""What an answer would hold if a path or a decoder's standard error got into it."""


@dataclass
class Course:
    """`ends` counts how the files ended; `faults` names each of which something was wrong."""

    client: httpx.Client
    worker: WorkerProcess
    ends: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def run(self, files: Iterable[tuple[str, bytes]]) -> None:
        with ThreadPoolExecutor(CLIENTS) as clients:
            list(clients.map(self._see, files))

    def _see(self, file: tuple[str, bytes]) -> None:
        name, content = file
        try:
            self.ends[self._end_of(content)] += 1
        except (AssertionError, httpx.HTTPError) as error:
            self.faults.append(f"{name}: {error!r:.500}")

    def _end_of(self, content: bytes) -> str:
        """Sends the file, waits for its job, and looks at all that is said of it."""
        query = {"vad": "off", "model": MODEL, "reuse": "off"}
        sent = self.client.post(
            "/v1/jobs", content=content, params=query, headers={"Content-Type": "audio/wav"}
        )
        if sent.status_code != 202:
            assert sent.status_code < 500, sent.text
            assert sent.json()["code"] in REFUSALS, sent.text
            check_detail(sent.json()["detail"])
            return str(sent.json()["code"])
        answer = self._ended(sent.json()["id"])
        job = answer.json()
        transcript = self.client.get(f"/v1/jobs/{job['id']}/transcript")
        for said in (answer.text, transcript.text):
            assert not _SECRETS.search(said), said
        for warning in job.get("warnings") or ():
            check_detail(warning)
        return self._failed(job) if job["status"] == "failed" else self._completed(job, transcript)

    def _ended(self, job_id: str) -> httpx.Response:
        left_s = END_S
        while left_s > 0:
            began = time.monotonic()
            answer = self.client.get(f"/v1/jobs/{job_id}", params={"wait": left_s})
            assert answer.status_code == 200, answer.text
            if answer.json()["status"] not in ("queued", "running"):
                return answer
            left_s -= time.monotonic() - began
        raise AssertionError(f"not ended after {END_S:.0f} s: {answer.text}")

    def _failed(self, job: dict[str, Any]) -> str:
        assert job["error"]["code"] in FAILURES, job["error"]
        check_detail(job["error"]["detail"])
        return str(job["error"]["code"])

    def _completed(self, job: dict[str, Any], transcript: httpx.Response) -> str:
        """Silence has no words; but it has a length, and a file without samples none."""
        assert job["status"] == "completed", job
        assert transcript.status_code == 200, transcript.text
        assert job["media"]["duration_s"] > 0, job["media"]
        assert transcript.json()["duration_s"] > 0, "completed, and empty"
        return "completed"


@contextmanager
def course(settings: Settings, store: RedisStore, folder: Path) -> Iterator[Course]:
    """An API and a worker of their own on the given Redis. The worker is to be the same one at the end."""
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    own = Settings(**(given | {"models": f"{MODEL}=tests/{MODEL}", "prepare_slots": 3, "max_wait_s": END_S}))
    log = folder / "worker.log"
    with (
        worker_process(own, Fleet(store), log, PLAIN) as worker,
        api_server(own) as api,
        httpx.Client(base_url=api.url, timeout=END_S + 30) as client,
    ):
        yield Course(client, worker)
        assert worker.stop() == 0, log.read_text()[-2000:]
