"""The API as a process: what it imports, and how gunicorn is set up."""

import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from api.auth import address_to_bind
from shared.blob_store import BlobStore
from shared.blobs import open_blobs
from shared.key_ring import KeyRing, require_keys
from shared.redis_store import RedisStore
from shared.settings import Settings, SettingsError
from tests.support.keys import make_key
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


@pytest.mark.slow
def test_an_address_that_others_reach_needs_a_key(settings: Settings, store: RedisStore) -> None:
    own = settings.model_copy(update={"host": "0.0.0.0"})
    refused = run("import api.gunicorn_conf", **environment(own))
    make_key(KeyRing(store, open_blobs(own)))

    started = run("import api.gunicorn_conf as conf; print(conf.bind)", **environment(own))

    assert refused.returncode == 78
    assert refused.stderr.startswith(
        "ananse: ANANSE_HOST: others reach 0.0.0.0, and there is no API key yet: "
    )
    assert refused.stderr.count("\n") == 1
    assert started.stdout.strip() == "0.0.0.0:8000", started.stderr


@pytest.mark.parametrize(
    ("host", "address", "more", "is_private"),
    [
        ("127.0.0.1", "127.0.0.1:8000", {}, True),
        ("127.8.8.8", "127.8.8.8:8000", {}, True),
        ("::1", "[::1]:8000", {}, True),
        ("localhost", "localhost:8000", {}, True),
        ("0.0.0.0", "0.0.0.0:8000", {}, False),
        ("::", "[::]:8000", {}, False),
        ("192.168.1.7", "192.168.1.7:8000", {}, False),
        ("box.example.org", "box.example.org:8000", {}, False),
        ("0.0.0.0", "0.0.0.0:8000", {"trusted_network": True}, True),
    ],
)
def test_who_reaches_an_address(
    settings: Settings, blobs: BlobStore, host: str, address: str, more: dict[str, bool], is_private: bool
) -> None:
    own = settings.model_copy(update={"host": host} | more)

    assert address_to_bind(own) == address
    assert own.is_private is is_private
    with nullcontext() if is_private else pytest.raises(SettingsError, match="no API key"):
        require_keys(own, blobs)
