"""What only an object store does: it is away, stands still, refuses; and nothing of it is held for long."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from shared import object_blobs
from shared.blob_store import BlobStore
from shared.blobs import open_blobs
from shared.bucket import Bucket
from shared.errors import BlobUnavailable, DependencyError, StorageFull
from shared.s3_client import ANSWER_S, ATTEMPTS, Access
from shared.scratch import scratch_file
from shared.settings import OBJECT_PART_BYTES, Settings, SettingsError
from tests.chaos.small_disk import small_disk
from tests.support.object_store import BUCKET, KEY, READER_KEY, READER_SECRET, SECRET, ObjectStore
from tests.support.waiting import wait_until

pytestmark = pytest.mark.service

MIB = 2**20
BOUND_S = ATTEMPTS * ANSWER_S + 60.0
"""And what a busy machine takes. The library left to itself would take five minutes."""


def read_open(blobs: BlobStore) -> bytes:
    with blobs.open("jobs/job_1/media") as file:
        return file.read()


def keep(blobs: BlobStore) -> None:
    with blobs.draft("jobs/job_2/media") as draft:
        draft.write(bytes(6 * MIB))
        draft.keep()


ACTS: dict[str, Callable[[BlobStore], object]] = {
    "read": lambda blobs: blobs.read("jobs/job_1/media"),
    "open": read_open,
    "local": lambda blobs: blobs.local("jobs/job_1/media").__enter__(),
    "exists": lambda blobs: blobs.exists("jobs/job_1/media"),
    "age": lambda blobs: blobs.age_s("jobs/job_1", datetime.now(UTC)),
    "write": lambda blobs: blobs.write("jobs/job_2/media", b"sound"),
    "draft": keep,
    "copy": lambda blobs: blobs.copy("jobs/job_1/media", "jobs/job_2/media"),
    "remove": lambda blobs: blobs.remove("jobs/job_1/media"),
    "remove folder": lambda blobs: blobs.remove_folder("jobs/job_1"),
    "folders": lambda blobs: blobs.folders("jobs"),
    "check": lambda blobs: blobs.check(),
    "drafts": lambda blobs: blobs.remove_drafts(0, datetime.now(UTC)),
}


@pytest.fixture
def settings(objects: ObjectStore, tmp_path: Path) -> Settings:
    return Settings(**objects.settings(), state_dir=tmp_path)


@pytest.fixture
def blobs(settings: Settings) -> BlobStore:
    made = open_blobs(settings)
    made.write("jobs/job_1/media", b"sound")
    return made


def with_(settings: Settings, **more: object) -> Settings:
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    return Settings(**(given | more))  # type: ignore[arg-type]


def unseen(settings: Settings) -> BlobStore:
    """Opened as if the store had answered well at the start, whatever it answers now."""
    return object_blobs.ObjectBlobs(bucket_of(settings), settings.state_dir / "scratch")


def bucket_of(settings: Settings) -> Bucket:
    bucket, _, prefix = settings.blob_url.removeprefix("s3://").partition("/")
    secret = settings.s3_secret_access_key
    access = Access(
        settings.s3_endpoint, key_id=settings.s3_access_key_id, secret=secret and secret.get_secret_value()
    )
    return Bucket(bucket, prefix, access)


def outcome(act: Callable[[BlobStore], object], blobs: BlobStore) -> tuple[type[BaseException] | None, float]:
    """What it raised, and after how long."""
    began = time.monotonic()
    try:
        act(blobs)
    except BaseException as error:
        return type(error), time.monotonic() - began
    return None, time.monotonic() - began


def outcomes(blobs: BlobStore) -> dict[str, type[BaseException] | None]:
    return {name: outcome(act, blobs)[0] for name, act in ACTS.items()}


@pytest.mark.slow
@pytest.mark.calm
def test_a_store_that_stands_still_is_unavailable_in_bounded_time(
    objects: ObjectStore, blobs: BlobStore
) -> None:
    with objects.frozen(), ThreadPoolExecutor(len(ACTS)) as pool:
        ends = dict(zip(ACTS, pool.map(lambda act: outcome(act, blobs), ACTS.values()), strict=True))

    assert {name: kind for name, (kind, _) in ends.items()} == dict.fromkeys(ACTS, BlobUnavailable)
    assert max(after_s for _, after_s in ends.values()) < BOUND_S
    # What it was asked while it stood still it may do now, so what was there may be gone.
    wait_until(
        lambda: outcome(lambda blobs: blobs.write("jobs/job_3/media", b"sound"), blobs)[0] is None, 120
    )
    assert blobs.read("jobs/job_3/media") == b"sound"


def test_a_store_that_is_away_is_unavailable_and_nothing_is_missing(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    away = unseen(with_(settings, s3_endpoint=f"http://127.0.0.1:{port}"))

    with ThreadPoolExecutor(len(ACTS)) as pool:
        ends = list(pool.map(lambda act: outcome(act, away)[0], ACTS.values()))

    assert ends == [BlobUnavailable] * len(ACTS)


def test_without_its_bucket_a_store_is_unavailable_and_nothing_is_missing(settings: Settings) -> None:
    gone = unseen(with_(settings, blob_url="s3://no-such-bucket/somewhere"))

    assert outcomes(gone) == dict.fromkeys(ACTS, BlobUnavailable)


def test_who_may_not_is_told_that_it_is_unavailable(settings: Settings, blobs: BlobStore) -> None:
    stranger = unseen(with_(settings, s3_secret_access_key="wrong"))
    reader = unseen(with_(settings, s3_access_key_id=READER_KEY, s3_secret_access_key=READER_SECRET))

    assert outcomes(stranger) == dict.fromkeys(ACTS, BlobUnavailable)
    assert reader.read("jobs/job_1/media") == b"sound"
    assert {name for name, kind in outcomes(reader).items() if kind is BlobUnavailable} >= {
        "write",
        "draft",
        "copy",
        "remove",
        "remove folder",
    }
    assert blobs.read("jobs/job_1/media") == b"sound"


@contextmanager
def answering(status: int, code: str) -> Iterator[str]:
    """A server that has the same answer for everything: its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (500, "InternalError", BlobUnavailable),
        (503, "SlowDown", BlobUnavailable),
        (403, "AccessDenied", BlobUnavailable),
        (404, "NoSuchBucket", BlobUnavailable),
        (507, "InsufficientStorage", StorageFull),
        (507, "XMinioStorageFull", StorageFull),
        (403, "QuotaExceeded", StorageFull),
    ],
)
def test_what_a_store_answers_has_one_of_our_names(
    settings: Settings, status: int, code: str, kind: type[DependencyError]
) -> None:
    with answering(status, code) as url:
        ill = unseen(with_(settings, s3_endpoint=url))
        with ThreadPoolExecutor(len(ACTS)) as pool:
            ends = list(pool.map(lambda act: outcome(act, ill)[0], ACTS.values()))

    assert ends == [kind] * len(ACTS)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (
            {"blob_url": "s3://no-such-bucket/x"},
            r"ANANSE_BLOB_URL: there is no bucket 'no-such-bucket'",
        ),
        (
            {"s3_secret_access_key": "wrong"},
            r"ANANSE_S3_SECRET_ACCESS_KEY: .* know these credentials",
        ),
        ({"s3_access_key_id": "nobody"}, r"ANANSE_S3_ACCESS_KEY_ID, .* know these credentials"),
        (
            {"s3_access_key_id": READER_KEY, "s3_secret_access_key": READER_SECRET},
            r"refuses PutObject in the bucket 'recordings' \(AccessDenied\); docs/storage.md",
        ),
        ({"blob_url": "s3://No_Such_Bucket!/x"}, r"ANANSE_BLOB_URL, .*Invalid bucket name"),
    ],
)
def test_what_is_wrong_from_the_start_is_one_sentence(
    settings: Settings, more: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(SettingsError, match=sentence) as raised:
        open_blobs(with_(settings, **more))

    assert "\n" not in str(raised.value)
    assert "wrong" not in str(raised.value)


def test_no_credentials_are_one_sentence_too(
    objects: ObjectStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in {
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/nowhere",
        "AWS_SHARED_CREDENTIALS_FILE": "/nowhere",
    }.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(SettingsError, match="no credentials for the object store were found"):
        open_blobs(Settings(blob_url=f"s3://{BUCKET}/x", s3_endpoint=objects.url, state_dir=tmp_path))


def test_credentials_may_come_as_for_aws_s_own_programs(
    objects: ObjectStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)

    open_blobs(Settings(blob_url=f"s3://{BUCKET}/x", s3_endpoint=objects.url, state_dir=tmp_path)).check()


def test_a_store_that_is_not_up_yet_stops_no_start(settings: Settings) -> None:
    with answering(503, "SlowDown") as url:
        assert outcome(ACTS["check"], open_blobs(with_(settings, s3_endpoint=url)))[0] is BlobUnavailable


def test_a_server_that_is_no_object_store_is_said(settings: Settings) -> None:
    with answering(404, "") as url, pytest.raises(SettingsError, match=r"ANANSE_BLOB_URL: .* refuses"):
        open_blobs(with_(settings, s3_endpoint=url))


def test_a_small_recording_is_one_request_and_a_large_one_a_part_each(
    objects: ObjectStore, blobs: BlobStore
) -> None:
    before = objects.requests()
    with blobs.draft("jobs/job_2/media") as draft:
        draft.write(bytes(MIB))
        draft.keep()
    small = objects.requests() - before
    keep(blobs)

    assert small.total() == 1
    # Begun, two parts, made whole.
    assert (objects.requests() - before - small).total() == 4


def test_a_draft_holds_no_more_than_a_part(blobs: BlobStore) -> None:
    with blobs.draft("jobs/job_2/media") as draft:
        for _ in range(64):
            draft.write(bytes(MIB // 4))
            assert len(draft._held) <= OBJECT_PART_BYTES


def test_a_copy_of_a_large_blob_is_made_in_parts(settings: Settings, blobs: BlobStore) -> None:
    content = bytes(range(256)) * (12 * MIB // 256) + b"end"
    blobs.write("jobs/job_1/media", content)

    bucket_of(settings).copy("jobs/job_1/media", "jobs/job_2/media", 5 * MIB)

    assert blobs.read("jobs/job_2/media") == content


@contextmanager
def changing(url: str, before: bytes, after: bytes) -> Iterator[str]:
    """A way to the store on which some bytes change: its address."""
    host, _, port = url.removeprefix("http://").partition(":")

    def carry(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while received := source.recv(2**16):
                target.sendall(received.replace(before, after))
        target.close()

    def serve(server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = server.accept()
                store = socket.create_connection((host, int(port)))
                for pair in ((client, store), (store, client)):
                    Thread(target=carry, args=pair, daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        Thread(target=serve, args=(server,), daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


def test_bytes_that_change_on_their_way_are_refused(
    objects: ObjectStore, settings: Settings, blobs: BlobStore
) -> None:
    with changing(objects.url, b"sound", b"noise") as url:
        spoiled = unseen(with_(settings, s3_endpoint=url))
        spoiled.write("jobs/job_2/media", b"quiet")
        with pytest.raises(BlobUnavailable):
            spoiled.write("jobs/job_2/media", b"sound")
        with pytest.raises(BlobUnavailable), spoiled.draft("jobs/job_2/media") as draft:
            draft.write(b"sound" + bytes(6 * MIB))

    assert blobs.read("jobs/job_2/media") == b"quiet"


def test_two_bytes_of_a_large_blob_are_not_all_of_it(objects: ObjectStore, blobs: BlobStore) -> None:
    blobs.write("jobs/job_1/media", bytes(20 * MIB))
    before = sent_bytes(objects)

    with blobs.open("jobs/job_1/media") as file:
        file.seek(10 * MIB)
        file.read(2)

    assert sent_bytes(objects) - before < MIB


def sent_bytes(objects: ObjectStore) -> int:
    lines = [line for line in objects.figures().splitlines() if "s3_bucket_traffic_sent_bytes_total{" in line]
    return sum(int(float(line.rpartition(" ")[2])) for line in lines)


def test_what_a_process_that_died_left_in_the_scratch_folder_goes(tmp_path: Path) -> None:
    (tmp_path / "recording-of-the-dead").write_bytes(bytes(100))

    with scratch_file(tmp_path) as mine:
        with scratch_file(tmp_path) as other:
            assert {path.name for path in tmp_path.glob("recording-*")} == {mine.name, other.name}
        assert mine.exists()
    assert not list(tmp_path.glob("recording-*"))


def test_no_room_to_decode_in_is_told_as_that(settings: Settings, blobs: BlobStore) -> None:
    blobs.write("jobs/job_1/media", bytes(3 * MIB))
    with small_disk(MIB) as disk:
        crowded = open_blobs(with_(settings, scratch_dir=disk.root))

        with pytest.raises(StorageFull), crowded.local("jobs/job_1/media"):
            pass

        assert not list(disk.root.glob("recording-*"))


def test_secrets_are_not_shown() -> None:
    shown = repr(Access(secret="s3cret")) + json.dumps(
        Settings(s3_access_key_id="k", s3_secret_access_key="s3cret").model_dump(mode="json")
    )

    assert "s3cret" not in shown
