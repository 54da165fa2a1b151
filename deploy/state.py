"""What `ananse up` keeps on disk, in one private folder: Redis data, socket, logs, blobs."""

import fcntl
from pathlib import Path
from typing import IO

from deploy.errors import StartError


class State:
    """The folder of one running service; a second one on the same folder is refused."""

    def __init__(self, folder: Path) -> None:
        """Raises StartError when the folder cannot be made or is in use."""
        self.folder = folder.absolute()
        self.run_dir = self._private("run")
        self.log_dir = self._private("log")
        self.redis_dir = self._private("redis")
        self.blob_dir = self._private("blobs")
        self._lock = self._locked()

    def close(self) -> None:
        self._lock.close()

    def _private(self, name: str) -> Path:
        path = self.folder / name
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise StartError(f"{path} cannot be made ({error.strerror}); set ANANSE_STATE_DIR") from error
        return path

    def _locked(self) -> IO[str]:
        file = (self.run_dir / "lock").open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            raise StartError(
                f"another `ananse up` runs on {self.folder}; "
                "stop it or set ANANSE_STATE_DIR to another folder"
            ) from error
        return file
