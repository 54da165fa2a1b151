"""Start-up mistakes of `python -m worker`: one sentence that says what to do, and exit code 78."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from shared.settings import Settings
from tests.support.object_store import ObjectStore
from tests.support.worker_process import environment

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.service]


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("ANANSE_BATCH_SIZE", "many", "ANANSE_BATCH_SIZE"),
        ("ANANSE_BATCHSIZE", "8", "ANANSE_BATCHSIZE is not a setting"),
        ("ANANSE_MODELS", "/no/such/folder", "/no/such/folder"),
        ("ANANSE_MODELS", "a=x/y,a=x/z", "same name"),
        ("ANANSE_WEBHOOK_SECRET", "swordfish", "whsec_"),
    ],
)
def test_a_mistake_is_one_sentence(
    tmp_path: Path, redis_url: str, setting: str, value: str, said: str
) -> None:
    given = {"ANANSE_BLOB_URL": f"file://{tmp_path}", "HF_HUB_OFFLINE": "1", setting: value}

    assert said in told_at_start({"ANANSE_REDIS_URL": redis_url, **given})


def test_a_bucket_that_is_not_there_is_one_sentence(redis_url: str, objects: ObjectStore) -> None:
    own = Settings(redis_url=redis_url, **(objects.settings() | {"blob_url": "s3://no-such-bucket"}))

    assert "there is no bucket 'no-such-bucket'" in told_at_start(environment(own))


def told_at_start(given: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "worker"],
        cwd=ROOT,
        env=dict(os.environ) | given,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 78
    told = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert len(told) == 1
    assert told[0].startswith("ananse: ")
    return told[0]


def test_a_port_for_metrics_that_is_taken_is_told_before_a_model_is_loaded(
    tmp_path: Path, redis_url: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = {"REDIS_URL": redis_url, "BLOB_URL": f"file://{tmp_path}", "METRICS_PORT": str(port)}
        done = subprocess.run(
            [sys.executable, "-m", "worker"],
            cwd=ROOT,
            env=dict(os.environ) | {f"ANANSE_{name}": value for name, value in settings.items()},
            capture_output=True,
            text=True,
            timeout=120,
        )

    assert done.returncode == 78
    assert done.stderr.startswith(f"ananse: ANANSE_METRICS_PORT: port {port} of 127.0.0.1 cannot be had")
    assert "model_loaded" not in done.stderr
