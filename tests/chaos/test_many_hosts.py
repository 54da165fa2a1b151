"""Hosts that share nothing but Redis and an object store: two of the API and two workers, each with folders
and an address of its own. A recording sent to one is worked on by all, and read from another."""

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from shared.redis_store import RedisStore, connect
from shared.settings import Settings
from tests.chaos.namespaces import Cut, Host, NotPermitted, network
from tests.chaos.scene import impatient
from tests.chaos.sounds import sound
from tests.chaos.stations import Station
from tests.support.api_server import api_server
from tests.support.object_store import object_store
from tests.support.redis_server import require_binary, running
from tests.support.service import Service
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.redis, pytest.mark.service, pytest.mark.slow]

SECONDS = 240.0
PART_S = 30
PARTS = 8
PACE = "0.08"
"""Of what a worker's model takes for a second of sound: the whole recording keeps one busy for 20 s."""

_PORT = "6379"
_SEED = 23


@dataclass(frozen=True, slots=True)
class Scene:
    """`urls` are those of the two APIs; `folders` those of all hosts that run our code."""

    urls: tuple[str, str]
    objects: Host
    east: Station
    west: Station
    service: Service
    folders: tuple[Path, ...]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with ExitStack() as stack:
        try:
            net = stack.enter_context(network())
        except NotPermitted as reason:
            pytest.skip(str(reason))
        redis, objects, *places = (
            net.add(name) for name in ("redis", "objects", "api1", "api2", "east", "west")
        )
        with redis.inside():
            open_to_all = ("--port", _PORT, "--bind", redis.address, "--protected-mode", "no")
            server = stack.enter_context(running(require_binary(), "--appendonly", "yes", *open_to_all))
        with objects.inside():
            store = stack.enter_context(object_store(objects.address))
        given = store.settings() | {"part_s": PART_S, "batch_size": 1}

        def settings_of(place: Host, **more: object) -> Settings:
            own = {"state_dir": tmp_path / place.namespace}
            return impatient(f"redis://{redis.address}:{_PORT}/0", tmp_path, **(given | own | more))

        urls = []
        for place in places[:2]:
            with place.inside():
                served = stack.enter_context(
                    api_server(settings_of(place, host=place.address, trusted_network=True))
                )
            urls.append(served.url)
        # This process talks to Redis over its socket.
        near = stack.enter_context(connect(server.url))
        service = Service(impatient(server.url, tmp_path, **given), RedisStore(near))
        stations = [
            Station(place, tmp_path / f"{place.namespace}.log", settings_of(place), service.fleet)
            for place in places[2:]
        ]
        for station in stations:
            stack.callback(station.close)
            station.start(PACE)
        folders = tuple(tmp_path / place.namespace for place in places)
        yield Scene((urls[0], urls[1]), objects, stations[0], stations[1], service, folders)


def parts_of(station: Station) -> set[str]:
    return {line.step for line in station.claims(0) if line.step.startswith("part")}


def test_hosts_without_a_shared_disk_do_a_job_together(scene: Scene, tmp_path: Path) -> None:
    recording = sound(tmp_path / "long.wav", SECONDS, _SEED)
    content = recording.path.read_bytes()
    here, there = (httpx.Client(base_url=url, timeout=60) for url in scene.urls)
    with here, there:
        answer = here.post(
            "/v1/jobs", params={"vad": "off"}, content=content, headers={"Content-Type": "audio/wav"}
        )
        assert answer.status_code == 202, answer.text
        links = answer.json()["links"]
        wait_until(lambda: parts_of(scene.east) and parts_of(scene.west), 60)

        # In the middle of it one worker dies, and the other hears nothing from the object store any more.
        scene.west.close()
        scene.east.host.cut(scene.objects, Cut.DEAF)
        try:
            wait_until(lambda: scene.east.has_logged("object_store_failed"), 90)
        finally:
            scene.east.host.heal(scene.objects, Cut.DEAF)

        job_id = answer.json()["id"]
        job = scene.service.ended(job_id, 180)
        assert (job.status, job.parts) == ("completed", PARTS), job.failure
        transcript = there.get(links["transcript"], params={"format": "json"}).json()
        assert transcript["text"] == recording.text
        whole = there.get(links["audio"])
        assert hashlib.sha256(whole.content).digest() == hashlib.sha256(content).digest()
        piece = there.get(links["audio"], headers={"Range": "bytes=5000000-5000099"})
        assert (piece.status_code, piece.content) == (206, content[5_000_000:5_000_100])
    # What the killed worker was at stays until the next one there uses the folder.
    living = [folder for folder in scene.folders if not folder.name.endswith("west")]
    assert [path for folder in living for path in folder.rglob("recording-*")] == []
    assert not (tmp_path / "blobs").exists()
