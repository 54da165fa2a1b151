"""One suite for every kind of place that bytes lie in: whole or not at all, and missing by one name."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import fsspec
import pytest

from shared.blob_store import BlobMissing, BlobStore
from shared.errors import BlobUnavailable

ROOT = Path(__file__).parents[2]

Act = Callable[[BlobStore], object]


@pytest.fixture(params=["file", "memory"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BlobStore]:
    if request.param == "file":
        yield BlobStore(f"file://{tmp_path}/blobs")
        return
    yield BlobStore("memory://tests")
    fsspec.filesystem("memory").store.clear()
    fsspec.filesystem("memory").pseudo_dirs[:] = [""]


@pytest.fixture
def disk(tmp_path: Path) -> BlobStore:
    return BlobStore(f"file://{tmp_path}/blobs")


def files(blobs: BlobStore) -> set[str]:
    """Every file under the store's folder, `incoming` included."""
    root = blobs.incoming.parent
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_what_was_written_is_read(blobs: BlobStore) -> None:
    blobs.write("jobs/job_1/media", b"sound")

    assert blobs.read("jobs/job_1/media") == b"sound"
    assert blobs.size("jobs/job_1/media") == 5
    assert blobs.exists("jobs/job_1/media")
    with blobs.open("jobs/job_1/media") as file:
        file.seek(2)
        assert file.read() == b"und"


def test_what_is_written_again_is_replaced_as_a_whole(blobs: BlobStore) -> None:
    blobs.write("jobs/job_1/part-0.json", b"a long first answer")
    blobs.write("jobs/job_1/part-0.json", b"short")

    assert blobs.read("jobs/job_1/part-0.json") == b"short"


def test_an_adopted_file_is_the_store_s_own(blobs: BlobStore) -> None:
    upload = blobs.incoming / "ananse-test-upload"
    upload.write_bytes(b"sound")

    blobs.adopt("jobs/job_1/media", upload)

    assert not upload.exists()
    assert blobs.read("jobs/job_1/media") == b"sound"


@pytest.mark.parametrize(
    "act",
    [
        lambda blobs: blobs.read("jobs/none"),
        lambda blobs: blobs.size("jobs/none"),
        lambda blobs: blobs.age_s("jobs/none", datetime.now(UTC)),
        lambda blobs: blobs.copy("jobs/none", "jobs/other/media"),
        lambda blobs: blobs.local("jobs/none").__enter__(),
    ],
    ids=["read", "size", "age_s", "copy", "local"],
)
def test_what_is_not_there_is_missing(blobs: BlobStore, act: Act) -> None:
    with pytest.raises(BlobMissing):
        act(blobs)


def test_a_copy_outlives_its_source(blobs: BlobStore) -> None:
    blobs.write("jobs/job_1/media", b"sound")

    blobs.copy("jobs/job_1/media", "jobs/job_2/media")
    blobs.remove("jobs/job_1")

    assert blobs.read("jobs/job_2/media") == b"sound"


def test_a_copy_is_not_changed_with_its_source(blobs: BlobStore) -> None:
    """On a disk both names share the bytes until one is written anew."""
    blobs.write("jobs/job_1/media", b"sound")
    blobs.copy("jobs/job_1/media", "jobs/job_2/media")

    blobs.write("jobs/job_1/media", b"other")

    assert blobs.read("jobs/job_2/media") == b"sound"


def test_a_folder_is_removed_with_all_that_is_in_it_and_nothing_else(blobs: BlobStore) -> None:
    for name in ("jobs/job_1/media", "jobs/job_1/part-0.flac", "jobs/job_10/media"):
        blobs.write(name, b"sound")

    blobs.remove("jobs/job_1")

    assert not blobs.exists("jobs/job_1/media")
    assert blobs.folders("jobs") == ("job_10",)


def test_one_blob_is_removed_alone_and_removing_again_is_fine(blobs: BlobStore) -> None:
    blobs.write("jobs/job_1/media", b"sound")
    blobs.write("jobs/job_1/part-0.flac", b"sound")

    for _ in range(2):
        blobs.remove("jobs/job_1/part-0.flac")
        blobs.remove("jobs/job_2")

    assert not blobs.exists("jobs/job_1/part-0.flac")
    assert blobs.exists("jobs/job_1/media")


def test_folders_are_named_in_order_and_none_where_there_is_none(blobs: BlobStore) -> None:
    for job_id in ("job_2", "job_1"):
        blobs.write(f"jobs/{job_id}/media", b"sound")

    assert blobs.folders("jobs") == ("job_1", "job_2")
    assert blobs.folders("elsewhere") == ()


def test_age_is_counted_from_the_last_writing(blobs: BlobStore) -> None:
    blobs.write("jobs/job_1/media", b"sound")

    assert 0.0 <= blobs.age_s("jobs/job_1/media", datetime.now(UTC)) < 60


def test_a_decoder_gets_a_file_of_this_machine(blobs: BlobStore) -> None:
    blobs.write("jobs/job_1/media", b"sound")

    with blobs.local("jobs/job_1/media") as path:
        assert path.read_bytes() == b"sound"

    assert path.exists() == blobs.is_local


def test_a_folder_has_an_age_too(disk: BlobStore) -> None:
    disk.write("jobs/job_1/media", b"sound")
    folder = disk.incoming.parent / "jobs" / "job_1"
    os.utime(folder, (time.time() - 100, time.time() - 100))

    assert disk.age_s("jobs/job_1", datetime.now(UTC)) == pytest.approx(100, abs=30)


def test_room_is_known_where_there_is_a_bound(blobs: BlobStore) -> None:
    assert (blobs.free_bytes() is not None) == blobs.is_local


def test_nothing_but_the_blob_is_left_after_writing(disk: BlobStore) -> None:
    disk.write("jobs/job_1/media", b"sound")

    assert files(disk) == {"jobs/job_1/media"}


def test_a_blob_that_cannot_take_its_place_leaves_nothing_half_done(disk: BlobStore) -> None:
    disk.write("jobs/job_1/media", b"sound")

    with pytest.raises(BlobUnavailable) as raised:
        disk.write("jobs/job_1/media/part", b"no folder can be made here")

    assert raised.value.retry_after_s is not None
    assert files(disk) == {"jobs/job_1/media"}


def test_a_relative_address_is_taken_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    BlobStore("file://./var/blobs").write("jobs/job_1/media", b"sound")

    assert (tmp_path / "var/blobs/jobs/job_1/media").read_bytes() == b"sound"


FILL = """
import sys
from shared.blob_store import BlobStore
from shared.errors import StorageFull
blobs = BlobStore("file://" + sys.argv[1])
blobs.write("jobs/job_1/media", b"small")
try:
    blobs.write("jobs/job_1/media", bytes(10**6))
except StorageFull as error:
    names = sorted(str(p.relative_to(sys.argv[1])) for p in blobs.incoming.parent.rglob("*") if p.is_file())
    print(error.code, error.retry_after_s, names, blobs.read("jobs/job_1/media"))
"""


def test_a_full_disk_is_told_and_what_was_there_stays(tmp_path: Path) -> None:
    """On a disk of 256 KiB, which only this process sees."""
    unshare = shutil.which("unshare")
    # An allocator with a thread of its own keeps `unshare` from making a user namespace.
    plain = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    if unshare is None or subprocess.run([unshare, "-rm", "true"], capture_output=True, env=plain).returncode:
        pytest.skip("no namespaces here, so no disk of the test's own")
    script = 'mount -t tmpfs -o size=256k none "$0" && exec "$@"'
    command = [unshare, "-rm", "sh", "-c", script, str(tmp_path), sys.executable, "-c", FILL, str(tmp_path)]

    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=plain)

    assert answer.stdout == "storage_full 5.0 ['jobs/job_1/media'] b'small'\n", answer.stderr
