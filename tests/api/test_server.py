"""The API behind a real gunicorn: large uploads, clients that go away, waiting, streams."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPException, HTTPResponse
from itertools import chain
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from shared.blobs import open_blobs
from shared.fleet import Fleet
from shared.ledger import Ledger
from shared.redis_store import RedisStore
from shared.settings import Settings
from tests.support.api_server import ApiServer, api_server
from tests.support.waiting import wait_until
from tests.support.worker_hand import WorkerHand

pytestmark = [pytest.mark.service, pytest.mark.slow]

MIB = 2**20
LARGE = 300 * 10**6
LIMIT = 400 * 10**6
_GIVE_UP_S = 60.0


@pytest.fixture(scope="module")
def served(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ApiServer, Settings]]:
    settings = Settings(
        redis_url=redis_url,
        blob_url=f"file://{tmp_path_factory.mktemp('served')}",
        max_upload_bytes=LIMIT,
        upload_idle_s=1,
        api_threads=16,
        max_wait_s=10,
    )
    with api_server(settings) as server:
        yield server, settings


@pytest.fixture
def server(served: tuple[ApiServer, Settings], store: RedisStore) -> ApiServer:
    return served[0]


@pytest.fixture
def root(served: tuple[ApiServer, Settings]) -> Path:
    return Path(served[1].blob_url.removeprefix("file://"))


@pytest.fixture
def http(server: ApiServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=_GIVE_UP_S) as client:
        yield client


@pytest.fixture
def worker(served: tuple[ApiServer, Settings], store: RedisStore) -> WorkerHand:
    return WorkerHand(Ledger(store), Fleet(store), open_blobs(served[1]))


def blocks(size_bytes: int) -> Iterator[bytes]:
    block = bytes(range(256)) * (MIB // 256)
    while size_bytes > 0:
        yield block[:size_bytes]
        size_bytes -= MIB


def is_clean(root: Path) -> Callable[[], bool]:
    return lambda: not any((root / "incoming").iterdir())


def connection(server: ApiServer) -> socket.socket:
    address = urlsplit(server.url)
    return socket.create_connection((address.hostname, address.port), timeout=_GIVE_UP_S)


def read_answer(client: socket.socket) -> tuple[int, bytes]:
    answer = HTTPResponse(client)
    answer.begin()
    return answer.status, answer.read()


class PeakRss:
    """The most memory a process held while inside."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._done = threading.Event()
        self.before = self.peak = self._process.memory_info().rss

    def __enter__(self) -> "PeakRss":
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.005):
            self.peak = max(self.peak, self._process.memory_info().rss)


@pytest.mark.parametrize("way", ["raw", "chunked", "form"])
def test_large_upload_is_never_whole_in_memory(
    server: ApiServer, http: httpx.Client, root: Path, way: str
) -> None:
    content: Iterator[bytes] = blocks(LARGE)
    headers = {"Content-Type": "audio/wav"}
    if way == "raw":
        headers["Content-Length"] = str(LARGE)
    elif way == "form":
        head = b'--cut\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        tail = b"\r\n--cut--\r\n"
        headers = {
            "Content-Type": "multipart/form-data; boundary=cut",
            "Content-Length": str(LARGE + len(head) + len(tail)),
        }
        content = chain((head,), blocks(LARGE), (tail,))

    with PeakRss(server.pid) as memory:
        answer = http.post("/v1/jobs", content=content, headers=headers)

    assert answer.status_code == 202, answer.text
    assert answer.json()["media"]["size_bytes"] == LARGE
    assert (root / "jobs" / answer.json()["id"] / "media").stat().st_size == LARGE
    assert memory.peak - memory.before < 100 * MIB
    assert http.delete(answer.headers["Location"]).status_code == 204


@pytest.mark.parametrize("form", [False, True])
def test_client_that_goes_away_leaves_nothing(server: ApiServer, root: Path, form: bool) -> None:
    kind = b"multipart/form-data; boundary=cut" if form else b"audio/wav"
    head = b'--cut\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' if form else b""
    jobs = set(root.glob("jobs/*"))
    with connection(server) as client:
        client.sendall(
            b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n"
            b"Content-Type: " + kind + b"\r\n\r\n" + head + bytes(3 * MIB)
        )
        wait_until(lambda: not is_clean(root)())

    wait_until(is_clean(root))
    assert set(root.glob("jobs/*")) == jobs


def test_client_that_falls_silent_is_cut(server: ApiServer, root: Path) -> None:
    with connection(server) as client:
        client.sendall(
            b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n"
            b"Content-Type: audio/wav\r\n\r\n" + bytes(2 * MIB)
        )
        status, body = read_answer(client)

    assert (status, json.loads(body)["code"]) == (400, "incomplete_upload")
    wait_until(is_clean(root))


def test_chunks_beyond_the_limit_are_cut(server: ApiServer, root: Path) -> None:
    sent = 0
    with connection(server) as client:
        client.sendall(
            b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
            b"Content-Type: audio/wav\r\n\r\n"
        )
        try:
            for block in blocks(2 * LIMIT):
                client.sendall(f"{len(block):x}\r\n".encode() + block + b"\r\n")
                sent += len(block)
            status = read_answer(client)[0]
        except (OSError, HTTPException):
            status = None

    assert sent >= LIMIT
    wait_until(is_clean(root))
    assert status in (413, None), "the connection may break before the answer is read"


def test_declared_length_beyond_the_limit_is_refused_at_once(server: ApiServer) -> None:
    began = time.monotonic()
    with connection(server) as client:
        client.sendall(
            f"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: {LIMIT + 1}\r\n"
            "Content-Type: audio/wav\r\n\r\n".encode()
        )
        status, body = read_answer(client)

    assert (status, json.loads(body)["code"]) == (413, "too_large")
    assert time.monotonic() - began < 20


def test_two_uploads_at_once_do_not_mix(http: httpx.Client) -> None:
    answers: dict[int, httpx.Response] = {}

    def send(number: int) -> None:
        answers[number] = http.post(
            f"/v1/jobs?name={number}",
            content=bytes([number]) * 20 * MIB,
            headers={"Content-Type": "audio/wav"},
        )

    threads = [threading.Thread(target=send, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    for number in (1, 2):
        job = answers[number].json()
        assert job["media"]["name"] == str(number)
        assert http.get(job["links"]["audio"]).content == bytes([number]) * 20 * MIB


def test_wait_wakes_at_once(http: httpx.Client, worker: WorkerHand) -> None:
    job = http.post("/v1/jobs", content=b"sound", headers={"Content-Type": "audio/wav"}).json()
    woken: list[float] = []

    def wait() -> None:
        assert http.get(job["links"]["self"], params={"wait": 10}).json()["status"] == "running"
        woken.append(time.monotonic())

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.3)
    acted = time.monotonic()
    worker.begin(job["id"])
    thread.join()

    assert woken[0] - acted < 0.2


def test_stream_of_events_is_live_and_goes_on(http: httpx.Client, worker: WorkerHand) -> None:
    job = http.post("/v1/jobs", content=b"sound", headers={"Content-Type": "audio/wav"}).json()
    with http.stream("GET", job["links"]["events"]) as stream:
        lines = stream.iter_lines()
        seen = next(line for line in lines if line.startswith("id: "))
    worker.complete(job["id"])

    with http.stream("GET", job["links"]["events"], headers={"Last-Event-ID": seen[4:]}) as stream:
        bodies = [json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data: ")]

    assert bodies[0] == {"status": "running"}
    assert bodies[-1] == {"status": "completed"}


def test_recording_comes_back_in_ranges(http: httpx.Client) -> None:
    content = b"".join(blocks(3 * MIB))
    job = http.post("/v1/jobs", content=content, headers={"Content-Type": "audio/wav"}).json()

    part = http.get(job["links"]["audio"], headers={"Range": f"bytes={MIB}-{2 * MIB}"})

    assert (part.status_code, part.content) == (206, content[MIB : 2 * MIB + 1])
    assert http.get(job["links"]["audio"]).content == content


def test_stop_does_not_wait_for_clients_that_do(redis_url: str, store: RedisStore, tmp_path: Path) -> None:
    settings = Settings(redis_url=redis_url, blob_url=f"file://{tmp_path}", api_threads=8)
    ended: list[str] = []

    def follow(link: str) -> None:
        ended.append(httpx.get(link, timeout=_GIVE_UP_S).text)

    with api_server(settings) as server:
        job = httpx.post(
            f"{server.url}/v1/jobs", content=b"sound", headers={"Content-Type": "audio/wav"}
        ).json()
        links = (f"{job['links']['events']}", f"{job['links']['self']}?wait=50")
        threads = [threading.Thread(target=follow, args=(server.url + link,)) for link in links]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(psutil.Process(server.pid).net_connections()) > 2)
        began = time.monotonic()
    for thread in threads:
        thread.join()

    assert time.monotonic() - began < 30
    assert len(ended) == 2
