"""Where the kernel grants no namespaces: the decoder still decodes, behind the walls that are left; and a
worker that was told to want all of them does not start."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from shared.fleet import DECODER_GUARDS, Fleet
from shared.redis_store import RedisStore
from shared.settings import Settings
from tests.support.ordinary_user import can_be_had, ordinary_user
from tests.support.worker_process import PLAIN, environment, worker_process
from worker.decoder_guards import examine
from worker.engine.decoder.sandbox import Guard

ROOT = Path(__file__).parents[2]
LEFT = (Guard.NO_PRIVILEGES, Guard.SYSTEM_CALLS)

EXAMINE = (
    "import json, sys; from shared import log, settings; from worker.decoder_guards import examine;"
    "given = settings.load(); log.configure('INFO');"
    "print(json.dumps({'held': examine(given)}), file=sys.stderr)"
)

needs_users = pytest.mark.skipif(not can_be_had(), reason="no user namespaces on this machine")


def examined(settings: Settings, become: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*become, sys.executable, "-c", EXAMINE],
        cwd=ROOT,
        env=environment(settings),
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


@needs_users
@pytest.mark.service
def test_without_namespaces_the_decoder_goes_on_and_the_log_says_so(settings: Settings) -> None:
    done = examined(settings, ordinary_user(may_make_namespaces=False))

    assert done.returncode == 0, done.stderr
    warning, told = (json.loads(line) for line in (done.stdout + done.stderr).splitlines())
    assert (warning["event"], warning["level"]) == ("decoder_guards_missing", "warning")
    assert warning["missing"] == [Guard.NAMESPACES, Guard.EMPTY_ROOT]
    assert told["held"] == list(LEFT)


@needs_users
@pytest.mark.service
def test_who_wants_all_guards_gets_no_worker_with_less(settings: Settings) -> None:
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    strict = Settings(**given, decode_sandbox="full")

    done = examined(strict, ordinary_user(may_make_namespaces=False))

    assert done.returncode != 0
    assert "grants no namespaces, empty_root: allow user namespaces" in done.stderr


@needs_users
@pytest.mark.service
def test_an_ordinary_user_has_them_all(settings: Settings) -> None:
    done = examined(settings, ordinary_user())

    assert json.loads(done.stderr.splitlines()[-1])["held"] == list(Guard)


@pytest.mark.redis
@pytest.mark.service
def test_a_worker_tells_its_guards(settings: Settings, store: RedisStore, tmp_path: Path) -> None:
    with worker_process(settings, Fleet(store), tmp_path / "worker.log", PLAIN):
        (worker,) = Fleet(store).live()

    assert worker.guards == examine(settings)
    assert "system_calls" in worker.guards
    assert '"decoder_guard' in (tmp_path / "worker.log").read_text()


def test_the_operator_is_told_of_how_many() -> None:
    assert len(Guard) == DECODER_GUARDS
