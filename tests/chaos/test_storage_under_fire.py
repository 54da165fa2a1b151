"""Disks that fill up, recordings that are lost or damaged, results that go while they are read: rows of the
failure table."""

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from api.uploads import RESERVE_BYTES
from shared import job_files
from shared.job import Status
from shared.redis_store import RedisStore, connect
from shared.settings import Settings
from tests.chaos.crew import (
    Crew,
    assert_all_right,
    crew,
    fall_due,
    has_ended,
    impatient,
)
from tests.chaos.small_disk import MIB, SmallDisk, small_disk
from tests.chaos.sounds import Sound, sound, sounds
from tests.support.api_server import api_server
from tests.support.redis_server import RedisServer, require_binary
from tests.support.service import Service
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.redis, pytest.mark.service, pytest.mark.slow]

SEED = 2027
AGAIN_S = 10.0
"""How soon after there is room again the service is to be as before."""

REDIS_AGAIN_S = 30.0
_TIMEOUT_S = 20.0
LOOKS = 20
"""Looks of a sweeper in vain, a fifth of a second each."""


def given_to(settings: Settings, **more: object) -> Settings:
    """The settings that were given, and more of them."""
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    return Settings(**(given | more))  # type: ignore[arg-type]


def on_disk(settings: Settings, disk: SmallDisk) -> Settings:
    return given_to(settings, blob_url=f"file://{disk.root}/blobs")


def post(client: httpx.Client, recording: Sound) -> httpx.Response:
    return client.post("/v1/jobs", params={"vad": "off"}, content=recording.path.read_bytes(), headers=AUDIO)


# A connection for each: one whose body was refused unread may be closed behind its answer.
AUDIO = {"Content-Type": "audio/wav", "Connection": "close"}


def test_a_full_disk_refuses_uploads_and_takes_them_again(
    settings: Settings, store: RedisStore, tmp_path: Path
) -> None:
    """Row 15: full before an upload, and full in the middle of one."""
    (recording,) = sounds(tmp_path, [3], SEED)
    with small_disk(RESERVE_BYTES + 64 * MIB) as disk:
        own = on_disk(settings, disk)
        with api_server(own) as api, httpx.Client(base_url=api.url, timeout=_TIMEOUT_S) as client:
            accepted = [post(client, recording)]
            incoming, before = disk.root / "blobs" / "incoming", jobs_on(disk)
            disk.fill(leave_bytes=RESERVE_BYTES)
            early = post(client, recording)
            disk.make_room()
            late = client.post("/v1/jobs", content=filling(disk), headers=AUDIO)
            assert [problem(answer) for answer in (early, late)] == [(507, "storage_full")] * 2
            wait_until(lambda: not any(incoming.iterdir()))
            assert jobs_on(disk) == before
            disk.make_room()
            freed_at = time.monotonic()
            accepted.append(post(client, recording))
            assert time.monotonic() - freed_at < AGAIN_S
            assert [answer.status_code for answer in accepted] == [202, 202]


def filling(disk: SmallDisk) -> Iterator[bytes]:
    """A body during which the disk fills up; the rest is small enough not to be cut off unread."""
    yield bytes(2 * MIB)
    wait_until(lambda: any(path.stat().st_size for path in (disk.root / "blobs" / "incoming").iterdir()), 30)
    disk.fill()
    yield bytes(MIB // 4)


def jobs_on(disk: SmallDisk) -> set[Path]:
    return set((disk.root / "blobs" / "jobs").iterdir())


def problem(answer: httpx.Response) -> tuple[int, str]:
    """Status and code; whoever is refused for now is told when to come again."""
    assert int(answer.headers["Retry-After"]) > 0
    return answer.status_code, answer.json()["code"]


def test_a_full_disk_puts_jobs_off_and_truncates_nothing(
    settings: Settings, store: RedisStore, tmp_path: Path
) -> None:
    """Row 15: full when one job's audio is cut into parts, and when another's results are written."""
    long, fresh = sounds(tmp_path, [90, 20], SEED)
    with small_disk(64 * MIB) as disk:
        service = Service(impatient(on_disk(settings, disk)), store)
        with crew(service, tmp_path, pace=0.03) as workers:
            (worker,) = workers.hire()
            given = {workers.submit(long): long}
            service.wait_for_windows(next(iter(given)), 1)
            worker.signal(signal.SIGSTOP)
            given[workers.submit(fresh)] = fresh
            disk.fill()
            worker.signal(signal.SIGCONT)
            wait_until(lambda: put_off(workers) == given.keys(), 30)
            assert {service.jobs.get(job_id).status for job_id in given} == {Status.RUNNING}
            disk.make_room()
            freed_at = time.monotonic()
            jobs = workers.see_through(given)
            assert_all_right(service, given, jobs)
            assert not any(service.blobs.incoming.iterdir())
            assert time.monotonic() - freed_at < AGAIN_S


def put_off(workers: Crew) -> set[str]:
    return {row["job_id"] for row in workers.log("step_put_off") if row["code"] == "storage_full"}


def test_a_full_disk_under_redis_refuses_jobs_and_loses_none(settings: Settings, tmp_path: Path) -> None:
    """Row 6: no room for the append-only file. Accepted jobs complete, before, during and after."""
    binary = require_binary()
    with small_disk(32 * MIB) as disk:
        redis = RedisServer(binary, disk.root, "--appendonly", "yes")
        try:
            own = given_to(settings, redis_url=redis.url)
            with connect(own.redis_url) as client:
                bear_a_full_redis(own, RedisStore(client), disk, tmp_path)
        finally:
            redis.kill()


def bear_a_full_redis(settings: Settings, store: RedisStore, disk: SmallDisk, folder: Path) -> None:
    service = Service(impatient(settings), store)
    with (
        crew(service, folder, pace=0.1) as workers,
        api_server(settings) as api,
        httpx.Client(base_url=api.url, timeout=_TIMEOUT_S) as client,
    ):
        (worker,) = workers.hire()
        sender = Sender(client, folder)
        sender.post_until(202, count=10)
        disk.fill()
        sender.post_until(507, count=10)
        # Long enough for whatever the worker does in vain.
        wait_until(lambda: has_ended(worker) or len(workers.log("sweep_failed")) > LOOKS, REDIS_AGAIN_S)
        sender.post_until(507, count=11)
        assert client.get(f"/v1/jobs/{next(iter(sender.accepted))}").status_code == 200
        disk.make_room()
        freed_at = time.monotonic()
        sender.post_until(202, count=len(sender.accepted) + 1)
        jobs = workers.see_through(sender.accepted)
        assert time.monotonic() - freed_at < REDIS_AGAIN_S
    assert {problem(answer) for answer in sender.refused} == {(507, "storage_full")}
    assert_all_right(service, sender.accepted, jobs)


class Sender:
    """A client that keeps its own books."""

    def __init__(self, client: httpx.Client, folder: Path) -> None:
        self._client = client
        self._folder = folder
        self._statuses: Counter[int] = Counter()
        self.accepted: dict[str, Sound] = {}
        self.refused: list[httpx.Response] = []

    def post_until(self, status: int, count: int) -> None:
        """Goes on until so many answers, from the first one on, had this status."""

        def enough() -> bool:
            self.post()
            return self._statuses[status] >= count

        wait_until(enough, REDIS_AGAIN_S)

    def post(self) -> None:
        number = self._statuses.total()
        recording = sound(self._folder / f"sent-{number}.wav", 4, SEED * 10_000 + number)
        answer = post(self._client, recording)
        self._statuses[answer.status_code] += 1
        if answer.status_code == 202:
            self.accepted[answer.json()["id"]] = recording
        else:
            self.refused.append(answer)


@pytest.mark.parametrize("damage", ["removed", "cut off", "one bit", "last bit"])
def test_a_recording_damaged_after_it_was_accepted_is_named_and_tried_once(
    settings: Settings, store: RedisStore, tmp_path: Path, damage: str
) -> None:
    """Row 16: a transcript of something else than what was sent would be worse than none."""
    service = Service(impatient(settings), store)
    whole, harmed = sounds(tmp_path, [5, 6], SEED)
    with crew(service, tmp_path) as workers:
        given = [workers.submit(one) for one in (whole, harmed)]
        with service.blobs.local(job_files.media(given[1])) as media:
            harm(media, damage)
        workers.hire()
        jobs = workers.see_through(given)
    assert_all_right(service, {given[0]: whole}, jobs)
    job = jobs[given[1]]
    assert job.status is Status.FAILED
    assert job.failure is not None
    assert job.failure.code == ("media_missing" if damage == "removed" else "corrupt_audio")
    assert job.attempt == 1


def harm(media: Path, damage: str) -> None:
    if damage == "removed":
        media.unlink()
        return
    content = bytearray(media.read_bytes())
    if damage == "cut off":
        del content[len(content) // 2 :]
    else:
        content[len(content) // 2 if damage == "one bit" else -1] ^= 1
    media.write_bytes(content)


def test_results_that_go_while_they_are_read_are_whole_or_gone(
    settings: Settings, store: RedisStore, tmp_path: Path
) -> None:
    """Row 31: readers in a loop while jobs expire; the disk is as empty afterwards as it was before."""
    service = Service(impatient(settings), store)
    root = Path(settings.blob_url.removeprefix("file://"))
    before = size_bytes(root)
    with (
        crew(service, tmp_path) as workers,
        api_server(settings) as api,
        httpx.Client(base_url=api.url, timeout=_TIMEOUT_S) as client,
    ):
        workers.hire()
        given = {workers.submit(one): one for one in sounds(tmp_path, [20.0] * 30, SEED)}
        assert_all_right(service, given, workers.see_through(given))
        assert size_bytes(root) > 30 * 20 * 32_000
        pages = [f"/v1/jobs/{job_id}/{kind}" for job_id in given for kind in KINDS]
        whole = {page: client.get(page).content for page in pages}
        with readers(api.url, pages) as seen:
            wait_until(lambda: len(seen) > 2 * len(pages), 60)
            for job_id in given:
                fall_due(service, [job_id])
            wait_until(lambda: not service.jobs.due_for_expiry(), 30)
            count = len(seen)
            wait_until(lambda: len(seen) > count + 2 * len(pages), 60)
    assert Counter(status for _, status, _ in seen).keys() == {200, 410}
    assert [page for page, status, content in seen if status == 200 and content != whole[page]] == []
    assert {service.jobs.get(job_id).status for job_id in given} == {Status.EXPIRED}
    assert size_bytes(root) == before


KINDS = ("transcript?format=json", "transcript?format=srt", "audio")


@contextmanager
def readers(url: str, pages: Sequence[str]) -> Iterator[list[tuple[str, int, bytes]]]:
    """Four clients that read the pages over and over: what they were answered."""
    seen: list[tuple[str, int, bytes]] = []
    stopped = threading.Event()

    def read(seed: int) -> None:
        chance = random.Random(seed)
        with httpx.Client(base_url=url, timeout=_TIMEOUT_S) as client:
            while not stopped.is_set():
                page = chance.choice(pages)
                answer = client.get(page)
                seen.append((page, answer.status_code, answer.content))

    threads = [threading.Thread(target=read, args=(SEED + number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        stopped.set()
        for thread in threads:
            thread.join()


def size_bytes(folder: Path) -> int:
    """Of all that lies in it."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
