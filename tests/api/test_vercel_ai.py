"""A second client of OpenAI's contract that nobody here wrote, in JavaScript: `make clients` fetches it."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from shared.fleet import Fleet
from shared.redis_store import RedisStore
from shared.settings import Settings
from tests.support.api_server import api_server
from tests.support.service import SAMPLES
from tests.support.worker_process import ROOT, worker_process

pytestmark = [pytest.mark.redis, pytest.mark.service, pytest.mark.model, pytest.mark.slow, pytest.mark.calm]

MODULES = ROOT / "var" / "node" / "node_modules"
SCRIPT = Path(__file__).with_name("vercel_ai.mjs")


@pytest.mark.skipif(
    not MODULES.is_dir() or shutil.which("node") is None, reason="needs node, and `make clients` once"
)
def test_vercels_ai_sdk_transcribes(redis_url: str, store: RedisStore, tmp_path: Path) -> None:
    settings = Settings(
        redis_url=redis_url, blob_url=f"file://{tmp_path}/blobs", state_dir=tmp_path / "state"
    )
    # Modules are looked for beside the script.
    script = shutil.copy(SCRIPT, MODULES.parent / SCRIPT.name)
    recording = SAMPLES / "short-1.flac"
    with api_server(settings) as server, worker_process(settings, Fleet(store), tmp_path / "worker.log"):
        done = subprocess.run(
            ["node", script, server.url, str(recording)], capture_output=True, text=True, timeout=240
        )

    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["language"] == "en"
    assert answer["text"] == " ".join(segment["text"].strip() for segment in answer["segments"])
    assert answer["durationInSeconds"] > 0
