"""Where a job's bytes lie, and the manifest: what was accepted, readable without Redis."""

import json
from pathlib import Path

import pytest

from shared import job_files
from shared.blob_store import BlobMissing, BlobStore
from shared.disk_blobs import DiskBlobs
from shared.job import Options, VadOptions
from shared.job_store import NewJob
from shared.media import Media


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return DiskBlobs(tmp_path)


OPTIONS = Options(
    model="twi",
    language="tw",
    word_timestamps=True,
    prompt="Mɛda wo ase",
    temperature=0.2,
    vad=VadOptions(enabled=False, threshold=0.4),
    start_s=1.5,
    end_s=9.0,
    priority=3,
    webhook_url="https://example.org/hook",
    webhook_auth_header_name="X-Key",
    webhook_auth_header_value="opensesame",
    metadata={"order": "7", "ɔ": "ɛ"},
    tag="blue",
    retention_s=3600,
)


@pytest.mark.parametrize("options", [Options(model="m"), OPTIONS], ids=["plain", "all options"])
def test_a_manifest_gives_back_what_was_accepted(blobs: BlobStore, options: Options) -> None:
    new = NewJob(
        "job_1",
        "ama",
        options,
        Media("Nsɛm 'x'.wav", 12, "0" * 64),
        request_id="req_1",
        retry_of="job_0",
        idempotency_key="k",
        request_hash="h",
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )

    job_files.write_manifest(blobs, new)

    assert job_files.read_manifest(blobs, "job_1") == new


def test_a_manifest_says_which_version_it_is(blobs: BlobStore) -> None:
    job_files.write_manifest(blobs, NewJob("job_1", "ama", OPTIONS, Media("a.wav", 1, "0")))

    assert json.loads(blobs.read(job_files.manifest("job_1")))["version"] == 1


def test_no_manifest_is_missing(blobs: BlobStore) -> None:
    with pytest.raises(BlobMissing):
        job_files.read_manifest(blobs, "job_1")


def test_all_that_belongs_to_a_job_lies_in_its_folder() -> None:
    names = [
        job_files.media("job_1"),
        job_files.manifest("job_1"),
        job_files.part_audio("job_1", "part-0"),
        job_files.part_result("job_1", "part-0"),
        job_files.transcript("job_1"),
    ]

    assert len(set(names)) == len(names)
    assert all(name.startswith(job_files.folder("job_1") + "/") for name in names)
