"""What was sent before: a small SQLite file, so that a command that is run again goes on where it was stopped
and nothing is uploaded or paid for twice. Any number of commands may use it at once."""

import hashlib
import json
import os
import sqlite3
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ananse_client.calls import is_url

_KEEP_S = 90 * 86_400
_TABLE = """CREATE TABLE IF NOT EXISTS sent (
    work TEXT PRIMARY KEY, idempotency_key TEXT NOT NULL, job_id TEXT NOT NULL DEFAULT '', at REAL NOT NULL
)"""


def default_path() -> Path:
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "ananse" / "sent.sqlite"


def work_of(url: str, source: str, options: Mapping[str, Any]) -> str:
    """The same file, unchanged, with the same options, at the same service is the same work."""
    seen: tuple[object, ...] = ()
    if not is_url(source):
        stat = Path(source).stat()
        seen = (stat.st_size, stat.st_mtime_ns)
    parts = json.dumps([url, source, seen, dict(options)], sort_keys=True)
    return hashlib.sha256(parts.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Sent:
    """`job_id` is empty while nobody knows whether the upload arrived."""

    idempotency_key: str
    job_id: str = ""


class Memory:
    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        with self._open() as database:
            database.execute(_TABLE)
            database.execute("DELETE FROM sent WHERE at < ?", (time.time() - _KEEP_S,))

    def begin(self, work: str) -> Sent:
        """To be called before the upload: should we die in it, the next try has the same key."""
        with self._open() as database:
            database.execute(
                "INSERT OR IGNORE INTO sent (work, idempotency_key, at) VALUES (?, ?, ?)",
                (work, str(uuid.uuid4()), time.time()),
            )
            row = database.execute(
                "SELECT idempotency_key, job_id FROM sent WHERE work = ?", (work,)
            ).fetchone()
        return Sent(*row)

    def note(self, work: str, job_id: str) -> None:
        with self._open() as database:
            database.execute("UPDATE sent SET job_id = ? WHERE work = ?", (job_id, work))

    def forget(self, work: str) -> None:
        """What failed or is gone is sent anew next time."""
        with self._open() as database:
            database.execute("DELETE FROM sent WHERE work = ?", (work,))

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """Opened each time: connections do not like threads, and this is rare."""
        with closing(sqlite3.connect(self._path, timeout=30)) as database, database:
            yield database
