"""A service of its own (Redis, a worker, the API behind gunicorn) and schemathesis upon it, from the OpenAPI
document that the service itself hands out."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from shared.api_keys import Scope
from shared.blobs import open_blobs
from shared.fleet import Fleet
from shared.redis_store import RedisStore, connect
from shared.settings import Settings
from tests.support.api_server import api_server
from tests.support.keys import make_key, ring_of
from tests.support.redis_server import require_binary, running
from tests.support.worker_process import PLAIN, worker_process

_FOLDER = Path(__file__).parent
_ROOT = _FOLDER.parents[1]
_GENERATED = re.compile(r"([0-9,]+) generated")
_REQUEST_S = 20


@dataclass(frozen=True, slots=True)
class Campaign:
    """`examples` is of each operation, beside the document's own examples and the corners of its schemas."""

    examples: int
    seed: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """`report` is schemathesis's own, to be read by people."""

    cases: int
    is_clean: bool
    report: str


def run(campaign: Campaign) -> Verdict:
    with tempfile.TemporaryDirectory(prefix="ananse-fuzz-") as folder, _served(Path(folder)) as (url, key):
        ended = subprocess.run(
            _command(campaign, url, key),
            cwd=folder,
            env=os.environ | {"SCHEMATHESIS_HOOKS": "tests.fuzz.hooks", "PYTHONPATH": _python_path()},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    found = _GENERATED.search(ended.stdout)
    cases = int(found[1].replace(",", "")) if found else 0
    return Verdict(cases, ended.returncode == 0, ended.stdout)


def _python_path() -> str:
    return os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))


@contextmanager
def _served(folder: Path) -> Iterator[tuple[str, str]]:
    """Its address, and a key that may do everything."""
    with running(require_binary()) as redis, connect(redis.url) as client:
        settings = Settings(
            redis_url=redis.url,
            blob_url=f"file://{folder}/blobs",
            state_dir=folder / "state",
            max_wait_s=0.2,
            upload_idle_s=2,
            key_requests_per_min=0,
            wrong_keys_per_min=0,
        )
        store = RedisStore(client)
        fleet = Fleet(store)
        ring = ring_of(store, open_blobs(settings))
        _, key = make_key(ring, "fuzz", scopes=frozenset({Scope.ADMIN}))
        with (
            worker_process(settings, fleet, folder / "worker.log", PLAIN),
            api_server(settings) as server,
        ):
            yield server.url, key


def _command(campaign: Campaign, url: str, key: str) -> list[str]:
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(_FOLDER / "schemathesis.toml")]
    command += ["run", f"{url}/openapi.json", "--no-color", "--continue-on-failure"]
    command += ["--max-examples", str(campaign.examples), "--seed", str(campaign.seed)]
    command += ["--generation-database", "none", "--request-timeout", str(_REQUEST_S)]
    # As through a proxy: figures, too, are then for those who have a key.
    return [*command, "--header", f"Authorization:Bearer {key}", "--header", "Via:1.1 proxy"]
