"""The file whose age tells whether a worker lives."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from shared.fleet import Fleet
from shared.redis_store import RedisStore, connect
from shared.settings import Settings
from tests.support.jobs import submit
from tests.support.worker_context import worker_context
from worker.beat_file import BeatFile
from worker.context import Context
from worker.heartbeat import Heartbeat

LONG_AGO = 1_000_000_000


@pytest.fixture
def context(settings: Settings, store: RedisStore) -> Iterator[Context]:
    with worker_context(settings, store) as context:
        yield context


def beats(settings: Settings) -> dict[str, float]:
    """When each worker's file was touched."""
    return {path.name: path.stat().st_mtime for path in (settings.state_dir / "workers").iterdir()}


def test_each_touch_makes_it_young(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path)
    file = BeatFile(settings, "host-1")
    file.touch()
    os.utime(tmp_path / "workers" / "host-1.beat", (LONG_AGO, LONG_AGO))

    file.touch()

    assert beats(settings)["host-1.beat"] > LONG_AGO
    file.remove()
    assert beats(settings) == {}


def test_what_a_killed_worker_left_is_cleared_away_and_nothing_else(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path)
    living = BeatFile(settings, "host-1")
    living.touch()
    code = (
        "from pathlib import Path; from shared.settings import Settings\n"
        "from worker.beat_file import BeatFile\n"
        f"file = BeatFile(Settings(state_dir=Path({str(tmp_path)!r})), 'host-2'); file.touch()\n"
        "print('touched', flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1) as killed:
        assert killed.stdout
        killed.stdout.readline()
        BeatFile(settings, "host-3").touch()
        assert set(beats(settings)) == {"host-1.beat", "host-2.beat", "host-3.beat"}
        killed.send_signal(signal.SIGKILL)
        killed.wait()

    again = BeatFile(settings, "host-4")
    again.touch()

    assert {"host-1.beat", "host-4.beat"} <= set(beats(settings))
    assert "host-2.beat" not in beats(settings)
    living.remove()
    again.remove()


@pytest.mark.redis
def test_a_worker_that_leaves_takes_it_along(context: Context) -> None:
    heartbeat = Heartbeat(context)
    heartbeat.start()
    assert list(beats(context.settings)) == ["worker-1.beat"]

    heartbeat.close()

    assert beats(context.settings) == {}


@pytest.mark.redis
def test_a_beat_that_does_not_reach_redis_is_none(context: Context) -> None:
    with connect("redis://127.0.0.1:1/0", retries=0) as nowhere:
        heartbeat = Heartbeat(replace(context, fleet=Fleet(RedisStore(nowhere))))
        heartbeat.start()
        heartbeat.close()

    assert not (context.settings.state_dir / "workers").exists()


@pytest.mark.redis
def test_a_folder_that_cannot_be_written_stops_no_work(context: Context, store: RedisStore) -> None:
    submit(store)
    context.settings.state_dir.touch()
    heartbeat = Heartbeat(context)

    heartbeat.start()

    assert store.client.zcard(store.key("busy", "prepare")) == 1
    heartbeat.close()
