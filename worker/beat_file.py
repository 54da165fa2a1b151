"""A file that is as old as this worker's last heartbeat: who watches the machine looks at its age, and needs
neither Redis nor a process that speaks to it."""

import fcntl
import os
from contextlib import suppress

from shared.settings import Settings

SUFFIX = ".beat"


class BeatFile:
    """`STATE_DIR/workers/NAME.beat`, held under a lock while its worker lives. Methods raise OSError."""

    def __init__(self, settings: Settings, name: str) -> None:
        self._folder = settings.state_dir / "workers"
        self._path = self._folder / (name + SUFFIX)
        self._handle: int | None = None

    def touch(self) -> None:
        """Appears with the first touch, which also clears away what killed workers left."""
        if self._handle is None:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._remove_orphans()
            self._handle = self._locked()
        os.utime(self._handle)

    def remove(self) -> None:
        if self._handle is not None:
            self._path.unlink(missing_ok=True)
            os.close(self._handle)
            self._handle = None

    def _locked(self) -> int:
        """Gets its name when it is locked, so that nobody takes it for an orphan before."""
        unnamed = self._folder / f".{self._path.name}"
        handle = os.open(unnamed, os.O_CREAT | os.O_WRONLY, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            unnamed.rename(self._path)
        except OSError:
            os.close(handle)
            raise
        return handle

    def _remove_orphans(self) -> None:
        """The system lets go of a lock when its process ends, however it ends; a pid may be given again."""
        for path in self._folder.glob("*" + SUFFIX):
            with suppress(FileNotFoundError), path.open() as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                path.unlink(missing_ok=True)
