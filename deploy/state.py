"""What `ananse up` keeps on disk, in one private folder: Redis data, socket, logs, blobs, signing secret."""

import base64
import fcntl
import os
import secrets
from pathlib import Path
from typing import IO

from deploy.errors import StartError

_SECRET_BYTES = 32


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

    def webhook_secret(self) -> str:
        """Made at the first start and kept, so that receivers need not be told a new one."""
        path = self.folder / "webhook-secret"
        if not path.exists():
            made = "whsec_" + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()
            draft = path.with_suffix(".new")
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                file.write(made + "\n")
            draft.replace(path)
        return path.read_text().strip()

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
