"""Streams that hold no thread: all events to all who listen, in order, whoever is slow, gone or late."""

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from api import events, listening, outlets
from api.listening import Listener, Listening, id_of
from api.outlets import Outlet
from shared.blobs import open_blobs
from shared.fleet import Fleet
from shared.job_store import JobStore
from shared.ledger import Claim, Ledger
from shared.redis_store import RedisStore, connect
from shared.settings import Settings
from tests.support.api_server import api_server
from tests.support.jobs import submit
from tests.support.redis_server import require_binary, running
from tests.support.waiting import wait_until
from tests.support.worker_hand import MODEL, WorkerHand, window

pytestmark = pytest.mark.redis

_END_S = 60.0


class Ears:
    """One client: a socket whose other end is served."""

    def __init__(self, is_chunked: bool) -> None:
        self.near, self.far = socket.socketpair()
        self.outlet = Outlet(self.far, is_chunked, self.close)
        self.near.settimeout(_END_S)
        self.is_closed = False
        self.has_left = False
        self.heard = b""

    def close(self) -> None:
        self.is_closed = True
        self.far.close()

    def leave(self) -> None:
        self.has_left = True

    def hear_all(self) -> "Ears":
        while chunk := self.near.recv(2**16):
            self.heard += chunk
        return self

    @property
    def ids(self) -> list[str]:
        return re.findall(r"^id: (\S+)$", self.heard.decode(), re.MULTILINE)


Listen = Callable[..., Ears]


@pytest.fixture
def hand(store: RedisStore, settings: Settings) -> WorkerHand:
    return WorkerHand(Ledger(store), Fleet(store), open_blobs(settings))


@pytest.fixture
def part(store: RedisStore, hand: WorkerHand) -> Claim:
    """Of the job that is listened to, which is running."""
    return begun(store, hand)


def begun(store: RedisStore, hand: WorkerHand, job_id: str = "job_1") -> Claim:
    submit(store, job_id, model=MODEL)
    return hand.cut(hand.begin(job_id))[0]


@pytest.fixture
def stopping() -> threading.Event:
    return threading.Event()


@pytest.fixture
def listen(store: RedisStore, stopping: threading.Event) -> Iterator[Listen]:
    yield from listen_by(store, stopping)


def listen_by(store: RedisStore, stopping: threading.Event, patience_s: float = _END_S) -> Iterator[Listen]:
    served = Listening(store, stopping, events.sse, events.is_end, patience_s)
    come: list[Ears] = []

    def listen(job_id: str = "job_1", after: str = "0", *, is_chunked: bool = False) -> Ears:
        ears = Ears(is_chunked)
        come.append(ears)
        served.take(Listener(job_id, id_of(after), is_chunked, ears.leave), ears.outlet)
        return ears

    yield listen
    stopping.set()
    served._events.nudge()
    wait_until(lambda: all(ears.is_closed for ears in come), _END_S)
    for ears in come:
        ears.near.close()
    if served._reader:
        served._reader.join()


def told(store: RedisStore, job_id: str = "job_1") -> list[str]:
    return [str(row[0]) for row in store.client.xrange(store.key("events", job_id))]


def end(hand: WorkerHand, part: Claim) -> None:
    said = window(0, 0.0, 1.5, "Good morning.")
    hand.store_part(part, said)
    hand.end(part.job_id, said)


def test_all_hear_all_of_their_job_and_no_other(store: RedisStore, hand: WorkerHand, listen: Listen) -> None:
    parts = [begun(store, hand, f"job_{number}") for number in range(3)]
    crowd = {part.job_id: [listen(part.job_id) for _ in range(4)] for part in parts}
    for number in range(20):
        for part in parts:
            hand.keep(part, window(number, number, number + 1, f"Window {number} of {part.job_id}."))
    for part in parts:
        end(hand, part)

    for job_id, listeners in crowd.items():
        for ears in listeners:
            assert ears.hear_all().ids == told(store, job_id)
            assert ears.heard.count(b'{"status":"completed"}') == 1
    wait_until(lambda: all(ears.has_left for listeners in crowd.values() for ears in listeners))


def test_who_comes_late_or_again_hears_what_it_missed(
    store: RedisStore, hand: WorkerHand, part: Claim, listen: Listen
) -> None:
    first = listen()
    hand.keep(part, window(0, 0, 1, "One."))
    middle = told(store)[-2]
    late, again = listen(), listen(after=middle)
    hand.keep(part, window(1, 1, 2, "Two."))
    end(hand, part)

    ids = told(store)
    assert first.hear_all().ids == late.hear_all().ids == ids
    assert again.hear_all().ids == ids[ids.index(middle) + 1 :]


def test_who_comes_does_not_wait_for_the_wait_of_others(
    redis_url: str,
    store: RedisStore,
    hand: WorkerHand,
    part: Claim,
    stopping: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listening, "WAIT_S", 10 * _END_S)
    begun(store, hand, "job_2")
    with connect(redis_url, timeout_s=20 * _END_S) as patient:
        for listen in listen_by(RedisStore(patient), stopping):
            listen().near.recv(2**16)
            # All the first one came for is told: Redis is waited for.
            wait_until(
                lambda: any(
                    "b" in row["flags"] for row in store.client.client_list() if row["cmd"] == "xread"
                ),
                _END_S,
            )

            assert listen("job_2").near.recv(1)


def test_an_answer_is_in_chunks_that_end(
    store: RedisStore, hand: WorkerHand, part: Claim, listen: Listen
) -> None:
    ears = listen(is_chunked=True)
    end(hand, part)

    rest, text = ears.hear_all().heard, b""
    while size := int(rest.partition(b"\r\n")[0], 16):
        rest = rest.partition(b"\r\n")[2]
        text, rest = text + rest[:size], rest[size:].removeprefix(b"\r\n")
    assert rest == b"0\r\n\r\n"
    assert text.endswith(b'data: {"status":"completed"}\n\n')


def test_who_reads_nothing_holds_up_nobody_and_gets_the_rest_later(
    store: RedisStore, hand: WorkerHand, part: Claim, listen: Listen
) -> None:
    """More than a socket and the outlet hold together."""
    slow, quick = listen(), listen()
    long_text = "word " * 8_000
    for number in range(40):
        hand.keep(part, window(number, number, number + 1, long_text))
    end(hand, part)

    assert quick.hear_all().ids == told(store)
    assert not slow.is_closed
    assert len(slow.outlet.unsent) < outlets._FULL_BYTES + 2 * len(long_text)
    assert slow.hear_all().ids == told(store)


def test_who_takes_nothing_for_long_is_cut(
    store: RedisStore, hand: WorkerHand, part: Claim, stopping: threading.Event
) -> None:
    for listen in listen_by(store, stopping, patience_s=0.2):
        ears = listen()
        for number in range(40):
            hand.keep(part, window(number, number, number + 1, "word " * 8_000))

        wait_until(lambda ears=ears: ears.has_left and ears.is_closed, _END_S)


def test_who_hangs_up_is_gone_at_once(part: Claim, listen: Listen) -> None:
    ears = listen()
    ears.near.close()

    wait_until(lambda: ears.has_left and ears.is_closed)


def test_a_job_that_is_deleted_ends_its_streams(
    store: RedisStore, part: Claim, listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "LOOK_S", 0.1)
    monkeypatch.setattr(listening, "WAIT_S", 0.05)
    ears = listen()
    ears.near.recv(1)
    assert JobStore(store).delete("job_1")

    ears.hear_all()


def test_what_cannot_be_read_ends_the_streams_of_its_job_alone(
    store: RedisStore, hand: WorkerHand, part: Claim, listen: Listen
) -> None:
    other = begun(store, hand, "job_2")
    well, ill = listen("job_2"), listen()
    ill.near.recv(1)
    store.client.xadd(store.key("events", "job_1"), {"kind": "window", "body": '{"of": "another version"}'})

    ill.hear_all()
    end(hand, other)

    assert well.hear_all().ids == told(store, "job_2")


def test_silence_is_broken_by_pings(part: Claim, listen: Listen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlets, "PING_S", 0.0)
    monkeypatch.setattr(outlets, "_TICK_S", 0.01)
    ears = listen()

    while b": ping\n\n" not in ears.heard:
        ears.heard += ears.near.recv(1000)


def test_all_are_let_go_when_the_process_stops(
    part: Claim, listen: Listen, stopping: threading.Event
) -> None:
    crowd = [listen(is_chunked=True) for _ in range(3)]
    stopping.set()

    assert all(ears.hear_all().heard.endswith(b"0\r\n\r\n") for ears in crowd)


def test_lines_are_kept_while_redis_is_away(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "_AGAIN_S", 0.05)
    stopping = threading.Event()
    with (
        running(require_binary(), "--appendonly", "yes", "--appendfsync", "always") as redis,
        connect(redis.url) as client,
    ):
        store = RedisStore(client)
        hand = WorkerHand(Ledger(store), Fleet(store), open_blobs(settings))
        part = begun(store, hand)
        for listen in listen_by(store, stopping):
            ears = listen()
            redis.kill()
            time.sleep(0.2)
            redis.start()
            end(hand, part)

            assert ears.hear_all().ids == told(store)


@pytest.mark.service
@pytest.mark.slow
@pytest.mark.calm
def test_more_listen_than_there_are_threads(redis_url: str, store: RedisStore, tmp_path: Path) -> None:
    """And the others are answered as if nobody did."""
    settings = Settings(redis_url=redis_url, blob_url=f"file://{tmp_path}", api_threads=4)
    hand = WorkerHand(Ledger(store), Fleet(store), open_blobs(settings))
    with api_server(settings) as server, httpx.Client(base_url=server.url, timeout=_END_S) as client:
        job = client.post("/v1/jobs", content=b"sound", headers={"Content-Type": "audio/wav"}).json()
        gone = _open(server.url, job["links"]["events"])
        crowd = [_open(server.url, job["links"]["events"]) for _ in range(20)]
        wait_until(lambda: _waiting(client) == 21, _END_S)
        gone.close()
        wait_until(lambda: _waiting(client) == 20, _END_S)
        assert client.get(job["links"]["self"]).json()["status"] == "queued"
        hand.complete(job["id"])

        answers = [_read(connection) for connection in crowd]
        wait_until(lambda: _waiting(client) == 0, _END_S)

    assert all(json.dumps({"status": "completed"}, separators=(",", ":")) in answer for answer in answers)
    assert all(answer.endswith("0\r\n\r\n") for answer in answers)
    # Else a client would send its next request where nobody listens any more.
    assert all("\r\nConnection: close\r\n" in answer for answer in answers)


def _open(url: str, path: str) -> socket.socket:
    host, _, port = url.removeprefix("http://").partition(":")
    connection = socket.create_connection((host, int(port)), timeout=_END_S)
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return connection


def _read(connection: socket.socket) -> str:
    with closing(connection):
        return b"".join(iter(lambda: connection.recv(2**16), b"")).decode()


def _waiting(client: httpx.Client) -> float:
    found = re.search(r'ananse_waiting_clients\{kind="events"\} (\S+)', client.get("/metrics").text)
    return float(found[1]) if found else 0.0
