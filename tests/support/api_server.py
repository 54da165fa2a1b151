"""The API as it is served: a gunicorn process of its own, on a port the system picks."""

import json
import queue
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from shared.settings import PREFIX, Settings
from tests.support.worker_process import environment

_ROOT = Path(__file__).parents[2]
_START_S = 20.0
_LISTENING = re.compile(r"Listening at: (http://\S+)")


@dataclass(frozen=True, slots=True)
class ApiServer:
    """`url` ends without a slash; `pid` is the one that serves requests. `log` is what was written by now,
    all of it once the server has stopped."""

    url: str
    pid: int
    log: list[str] = field(default_factory=list)

    def rss_bytes(self) -> int:
        return int(psutil.Process(self.pid).memory_info().rss)


@contextmanager
def api_server(settings: Settings, **more: str) -> Iterator[ApiServer]:
    """`more` are further environment variables."""
    process = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "-c", "api/gunicorn_conf.py", "api.app:create_app()"],
        cwd=_ROOT,
        env=_environment(settings) | more,
        stderr=subprocess.PIPE,
        text=True,
    )
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    log: list[str] = []
    reader = threading.Thread(target=_read, args=(process, lines, log))
    reader.start()
    try:
        url = _wait_for(lines, _LISTENING)
        _wait_for(lines, re.compile("(Booting worker)"))
        worker = psutil.Process(process.pid).children()[0]
        yield ApiServer(url, worker.pid, log)
    finally:
        process.terminate()
        process.wait()
        reader.join()
        if process.stderr:
            process.stderr.close()


def _read(process: "subprocess.Popen[str]", lines: "queue.SimpleQueue[str]", log: list[str]) -> None:
    for line in process.stderr or ():
        log.append(line)
        lines.put(line)


def _wait_for(lines: "queue.SimpleQueue[str]", pattern: re.Pattern[str]) -> str:
    seen: list[str] = []
    with suppress(queue.Empty):
        while True:
            seen.append(lines.get(timeout=_START_S))
            if found := pattern.search(_event(seen[-1])):
                return found[1]
    raise AssertionError("the API did not start: " + "".join(seen))


def _event(line: str) -> str:
    with suppress(ValueError):
        return str(json.loads(line).get("event", ""))
    return line


def _environment(settings: Settings) -> dict[str, str]:
    return environment(settings) | {f"{PREFIX}PORT": "0"}
