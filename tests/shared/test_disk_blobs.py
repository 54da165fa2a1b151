"""What only a disk does: files that take their place by a rename, and no room left."""

import os
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from shared.blobs import open_blobs
from shared.disk_blobs import DiskBlobs
from shared.errors import BlobUnavailable
from shared.settings import Settings, SettingsError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def disk(tmp_path: Path) -> DiskBlobs:
    return DiskBlobs(tmp_path / "blobs")


def files(blobs: DiskBlobs) -> set[str]:
    """Every file under the store's folder, `incoming` included."""
    root = blobs.incoming.parent
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_a_folder_has_an_age_too(disk: DiskBlobs) -> None:
    disk.write("jobs/job_1/media", b"sound")
    folder = disk.incoming.parent / "jobs" / "job_1"
    os.utime(folder, (time.time() - 100, time.time() - 100))

    assert disk.age_s("jobs/job_1", datetime.now(UTC)) == pytest.approx(100, abs=30)


def test_room_is_known(disk: DiskBlobs, tmp_path: Path) -> None:
    assert disk.free_bytes() == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.05)


def test_a_disk_that_was_unmounted_lacks_nothing(disk: DiskBlobs) -> None:
    disk.write("jobs/job_1/media", b"sound")
    shutil.rmtree(disk.incoming.parent)

    for act in (disk.check, lambda: disk.exists("jobs/job_1/media"), lambda: disk.read("jobs/job_1/media")):
        with pytest.raises(BlobUnavailable):
            act()


def test_a_folder_that_cannot_be_made_is_said_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(SettingsError, match=r"ANANSE_BLOB_URL: .*/file/blobs cannot be made"):
        open_blobs(Settings(blob_url=f"file://{tmp_path}/file/blobs"))


def test_an_upload_lies_on_the_disk_it_is_to_stay_on(disk: DiskBlobs) -> None:
    with disk.draft("jobs/job_1/media") as draft:
        draft.write(b"half of it")
        assert [path.stat().st_size for path in disk.incoming.iterdir()] == [10]

    assert files(disk) == set()


def test_nothing_but_the_blob_is_left_after_writing(disk: DiskBlobs) -> None:
    disk.write("jobs/job_1/media", b"sound")

    assert files(disk) == {"jobs/job_1/media"}


def test_a_blob_that_cannot_take_its_place_leaves_nothing_half_done(disk: DiskBlobs) -> None:
    disk.write("jobs/job_1/media", b"sound")

    with pytest.raises(BlobUnavailable) as raised:
        disk.write("jobs/job_1/media/part", b"no folder can be made here")

    assert raised.value.retry_after_s is not None
    assert files(disk) == {"jobs/job_1/media"}


def test_a_relative_address_is_taken_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    open_blobs(Settings(blob_url="file://./var/blobs")).write("jobs/job_1/media", b"sound")

    assert (tmp_path / "var/blobs/jobs/job_1/media").read_bytes() == b"sound"


FILL = """
import sys
from pathlib import Path
from shared.disk_blobs import DiskBlobs
from shared.errors import StorageFull
blobs = DiskBlobs(Path(sys.argv[1]))
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
