"""One suite for every kind of place that bytes lie in: whole or not at all, and missing by one name."""

import os
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from shared.blob_store import BlobMissing, BlobStore
from shared.blobs import open_blobs
from shared.settings import Settings

Act = Callable[[BlobStore], object]

MIB = 2**20
KINDS = ["disk", pytest.param("objects", marks=pytest.mark.service)]
ODD_NAMES = [
    "with space",
    "plus+and%2Bpercent",
    "ünïcode-ɛ",
    "a=b&c?d#e",
    "semi;colon,comma",
    "quote'\"",
    "~tilde",
]


@pytest.fixture(params=KINDS)
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    if request.param == "disk":
        return Settings(blob_url=f"file://{tmp_path}/blobs")
    own: dict[str, Any] = request.getfixturevalue("objects").settings()
    return Settings(**own, state_dir=tmp_path)


@pytest.fixture
def blobs(settings: Settings) -> BlobStore:
    return open_blobs(settings)


def test_what_was_written_is_read(blobs: BlobStore) -> None:
    blobs.write("jobs/job_1/media", b"sound")

    assert blobs.read("jobs/job_1/media") == b"sound"
    assert blobs.exists("jobs/job_1/media")
    with blobs.open("jobs/job_1/media") as file:
        file.seek(3)
        assert file.read() == b"nd"


def test_what_was_written_again_is_replaced_as_a_whole(blobs: BlobStore) -> None:
    blobs.write("jobs/job_1/part-0.json", b"a long first answer")
    blobs.write("jobs/job_1/part-0.json", b"short")

    assert blobs.read("jobs/job_1/part-0.json") == b"short"


def test_a_blob_may_be_empty(blobs: BlobStore) -> None:
    blobs.write("jobs/job_1/media", b"")

    assert blobs.exists("jobs/job_1/media")
    assert blobs.read("jobs/job_1/media") == b""
    with blobs.open("jobs/job_1/media") as file:
        assert file.read() == b""
    with blobs.local("jobs/job_1/media") as path:
        assert path.read_bytes() == b""


@pytest.mark.parametrize(
    "size",
    [
        0,
        1,
        5 * MIB,
        5 * MIB + 1,
        10 * MIB,
        pytest.param(64 * MIB + 7, marks=[pytest.mark.slow, pytest.mark.calm]),
    ],
    ids=str,
)
def test_a_draft_of_any_size_is_the_blob_once_it_is_kept(blobs: BlobStore, size: int) -> None:
    content = random.Random(size).randbytes(size)
    with blobs.draft("jobs/job_1/media") as draft:
        for start in range(0, size, MIB // 3):
            draft.write(content[start : start + MIB // 3])
        assert not blobs.exists("jobs/job_1/media")
        draft.keep()

    assert blobs.read("jobs/job_1/media") == content
    with blobs.local("jobs/job_1/media") as path:
        assert path.read_bytes() == content


@pytest.mark.parametrize("size", [3, 11 * MIB], ids=str)
def test_a_draft_that_is_not_kept_was_never_there(blobs: BlobStore, size: int) -> None:
    blobs.write("jobs/job_1/media", b"before")

    with suppress(ZeroDivisionError), blobs.draft("jobs/job_1/media") as draft:
        draft.write(bytes(size))
        raise ZeroDivisionError

    assert blobs.read("jobs/job_1/media") == b"before"
    assert blobs.remove_drafts(-1.0, datetime.now(UTC) + timedelta(seconds=5)) == 0


def test_drafts_of_writers_who_died_go_once_they_are_old(blobs: BlobStore) -> None:
    """Whose block never ends, as when a process is killed."""
    left = [blobs.draft(f"jobs/job_{number}/media") for number in range(2)]
    for one in left:
        one.__enter__().write(bytes(6 * MIB))

    now = datetime.now(UTC)
    assert blobs.remove_drafts(3600, now + timedelta(seconds=3000)) == 0
    assert blobs.remove_drafts(3600, now + timedelta(seconds=4000)) == 2
    assert blobs.remove_drafts(3600, now + timedelta(seconds=4000)) == 0
    assert blobs.folders("jobs") == ()


@pytest.mark.parametrize(
    "act",
    [
        lambda blobs: blobs.read("jobs/none"),
        lambda blobs: blobs.open("jobs/none").__enter__(),
        lambda blobs: blobs.local("jobs/none").__enter__(),
        lambda blobs: blobs.age_s("jobs/none", datetime.now(UTC)),
        lambda blobs: blobs.copy("jobs/none", "jobs/other/media"),
    ],
    ids=["read", "open", "local", "age", "copy"],
)
def test_what_is_not_there_is_missing(blobs: BlobStore, act: Act) -> None:
    with pytest.raises(BlobMissing):
        act(blobs)


def test_a_name_is_no_beginning_of_another(blobs: BlobStore) -> None:
    blobs.write("jobs/job_10/media", b"sound")

    assert not blobs.exists("jobs/job_1")
    assert not blobs.exists("jobs/job_10/med")
    with pytest.raises(BlobMissing):
        blobs.age_s("jobs/job_1", datetime.now(UTC))


def test_a_copy_outlives_its_source(blobs: BlobStore) -> None:
    blobs.write("jobs/job_1/media", b"sound")

    blobs.copy("jobs/job_1/media", "jobs/job_2/media")
    blobs.remove_folder("jobs/job_1")

    assert blobs.read("jobs/job_2/media") == b"sound"


def test_a_copy_is_not_changed_with_its_source(blobs: BlobStore) -> None:
    """They may share their bytes: a blob is only ever replaced."""
    blobs.write("jobs/job_1/media", b"sound")
    blobs.copy("jobs/job_1/media", "jobs/job_2/media")

    blobs.write("jobs/job_1/media", b"other")

    assert blobs.read("jobs/job_2/media") == b"sound"


def test_a_folder_is_removed_with_all_that_is_in_it_and_nothing_else(blobs: BlobStore) -> None:
    for name in ("jobs/job_1/media", "jobs/job_1/part-0.flac", "jobs/job_10/media"):
        blobs.write(name, b"sound")

    blobs.remove_folder("jobs/job_1")

    assert not blobs.exists("jobs/job_1/media")
    assert not blobs.exists("jobs/job_1/part-0.flac")
    assert blobs.folders("jobs/job_1") == ()
    assert blobs.exists("jobs/job_10/media")


def test_one_blob_is_removed_alone_and_removing_again_is_fine(blobs: BlobStore) -> None:
    blobs.write("jobs/job_1/media", b"sound")
    blobs.write("jobs/job_1/part-0.flac", b"sound")

    for _ in range(2):
        blobs.remove("jobs/job_1/part-0.flac")
        blobs.remove("jobs/none/media")
        blobs.remove_folder("jobs/job_2")

    assert not blobs.exists("jobs/job_1/part-0.flac")
    assert blobs.exists("jobs/job_1/media")


def test_names_directly_below_come_in_order_and_none_where_there_is_none(blobs: BlobStore) -> None:
    for job_id in ("job_2", "job_1"):
        blobs.write(f"jobs/{job_id}/media", b"sound")
        blobs.write(f"jobs/{job_id}/part-0.json", b"[]")

    assert blobs.folders("jobs") == ("job_1", "job_2")
    assert blobs.folders("jobs/job_1") == ("media", "part-0.json")
    assert blobs.folders("elsewhere") == ()


@pytest.mark.slow
@pytest.mark.calm
def test_more_names_than_fit_on_a_page_are_all_found_and_all_removed(blobs: BlobStore) -> None:
    names = [f"job_{number:04}" for number in range(1005)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: blobs.write(f"jobs/{name}/media", b"s"), names))

    assert blobs.folders("jobs") == tuple(names)

    blobs.remove_folder("jobs")
    assert not [name for name in names if blobs.folders(f"jobs/{name}")]


def test_age_is_counted_from_the_last_writing(blobs: BlobStore) -> None:
    before = datetime.now(UTC)
    blobs.write("jobs/job_1/media", b"sound")

    for name in ("jobs/job_1/media", "jobs/job_1"):
        assert 0.0 <= blobs.age_s(name, datetime.now(UTC)) < 60
        assert 500 < blobs.age_s(name, before + timedelta(seconds=600)) < 660


@pytest.mark.parametrize("name", ODD_NAMES)
def test_names_may_hold_any_character(blobs: BlobStore, name: str) -> None:
    blobs.write(f"jobs/{name}/media", b"sound")
    blobs.copy(f"jobs/{name}/media", f"jobs/{name}/{name}")

    assert blobs.folders("jobs") == (name,)
    assert blobs.folders(f"jobs/{name}") == tuple(sorted(["media", name]))
    assert blobs.read(f"jobs/{name}/{name}") == b"sound"
    with blobs.open(f"jobs/{name}/media") as file:
        assert file.read() == b"sound"

    blobs.remove_folder(f"jobs/{name}")
    assert blobs.folders(f"jobs/{name}") == ()


def test_any_range_of_an_open_blob_can_be_read(blobs: BlobStore) -> None:
    content = random.Random(1).randbytes(5 * MIB + 13)
    blobs.write("jobs/job_1/media", content)

    with blobs.open("jobs/job_1/media") as file:
        assert file.seek(0, os.SEEK_END) == len(content)
        assert file.read(1) == b""
        for first, count in [(0, 2), (4 * MIB, 70_000), (3, 3 * MIB), (len(content) - 5, 100), (17, 0)]:
            file.seek(first)
            assert file.read(count) == content[first : first + count]
        file.seek(0)
        assert b"".join(iter(lambda: file.read(2**16), b"")) == content


def test_a_decoder_gets_a_file_of_this_machine_and_leaves_none_behind(
    blobs: BlobStore, settings: Settings
) -> None:
    blobs.write("jobs/job_1/media", b"sound")

    with blobs.local("jobs/job_1/media") as one, blobs.local("jobs/job_1/media") as other:
        assert one.read_bytes() == other.read_bytes() == b"sound"

    assert not list((settings.state_dir / "scratch").glob("recording-*"))
    assert blobs.read("jobs/job_1/media") == b"sound"


def test_readers_see_one_writing_or_another_and_never_a_mixture(blobs: BlobStore) -> None:
    contents = [bytes([number]) * (200_000 + number) for number in range(6)]
    blobs.write("jobs/job_1/media", contents[0])

    with ThreadPoolExecutor(12) as pool:
        reads = [pool.submit(blobs.read, "jobs/job_1/media") for _ in range(40)]
        for content in contents:
            pool.submit(blobs.write, "jobs/job_1/media", content)
        reads += [pool.submit(blobs.read, "jobs/job_1/media") for _ in range(40)]

    assert {read.result() for read in reads} <= set(contents)


def test_a_store_that_is_there_says_nothing(blobs: BlobStore) -> None:
    blobs.check()
    assert blobs.free_bytes() is None or blobs.free_bytes() > 0
