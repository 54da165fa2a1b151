"""The API as a process: what it imports, and how gunicorn is set up."""

import subprocess
import sys
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from api.auth import address_to_bind
from shared.settings import Settings
from tests.support.object_store import ObjectStore
from tests.support.worker_process import environment

_ROOT = Path(__file__).parents[2]
_FORBIDDEN = ("torch", "numpy", "transformers", "av", "librosa", "worker")


def run(code: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", code], cwd=_ROOT, env=environment, capture_output=True, text=True
    )


@pytest.mark.slow
def test_the_api_needs_nothing_of_the_workers() -> None:
    code = f"import sys, api.app; print([name for name in {_FORBIDDEN!r} if name in sys.modules])"

    done = run(code, PATH="/usr/bin")

    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.slow
def test_wrong_settings_stop_the_start(tmp_path: Path) -> None:
    done = run("import api.gunicorn_conf", ANANSE_PORT="99999", ANANSE_BOGUS="1")

    assert done.returncode == 78
    assert done.stderr.startswith("ananse: ANANSE_BOGUS is not a setting; ANANSE_PORT: ")
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.service
def test_a_bucket_that_is_not_there_stops_the_start(objects: ObjectStore) -> None:
    own = Settings(**(objects.settings() | {"blob_url": "s3://no-such-bucket"}))

    done = run("import api.gunicorn_conf", **environment(own))

    assert done.returncode == 78
    said = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert len(said) == 1
    assert said[0].startswith("ananse: ANANSE_BLOB_URL: there is no bucket 'no-such-bucket' at http://")


@pytest.mark.parametrize(
    ("host", "address", "warns"),
    [
        ("127.0.0.1", "127.0.0.1:8000", False),
        ("::1", "[::1]:8000", False),
        ("0.0.0.0", "0.0.0.0:8000", True),
    ],
)
def test_address_open_to_the_network_is_warned_of(
    settings: Settings, host: str, address: str, warns: bool
) -> None:
    with capture_logs() as logged:
        found = address_to_bind(settings.model_copy(update={"host": host}))

    assert found == address
    assert [line["event"] for line in logged] == ["api_open_to_network_without_keys"] * warns
