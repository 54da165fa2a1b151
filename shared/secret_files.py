"""Secrets as Docker and Kubernetes hand them over: a file each, named like the setting in small letters."""

from pathlib import Path

SECRETS_DIR = Path("/run/secrets")
"""Where they lie: `ananse_redis_url` for ANANSE_REDIS_URL."""


def secret_files(folder: Path, prefix: str) -> list[Path]:
    """What lies there for us; others may keep theirs beside it."""
    try:
        return sorted(path for path in folder.iterdir() if path.name.upper().startswith(prefix))
    except (FileNotFoundError, NotADirectoryError):
        return []


def fault_of(path: Path) -> str:
    """Why it cannot be taken as a secret, if so. Docker makes a folder of a file that is not there."""
    if not path.is_file():
        return "is no file"
    try:
        return "" if path.read_text().strip() else "is empty"
    except (OSError, UnicodeDecodeError):
        return "cannot be read"
