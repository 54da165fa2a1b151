"""Who uses the service while it is being shot at: clients that submit until they are answered, look, and
cancel now and then; and the receiver of their webhooks, which is not always in the mood."""

import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

from tests.chaos.promises import TERMINAL, Book, Promise
from tests.chaos.scene import encoded, noise

LENGTHS_S = (0.5, 0.8, 1.0, 1.3, 1.7, 2.0, 2.5, 3.0, 4.0, 6.0, 9.0, 12.0, 70.0)
"""Of the recordings; most take one window, some a few, the last is cut into parts."""

RARE = len(LENGTHS_S) - 1
CANCELED_SHARE = 0.03
HOOKED_SHARE = 0.3
REFUSED_SHARE = 0.1
_GIVE_UP_S = 180.0
_PAUSE_S = 0.3


def recordings(seed: int) -> list[bytes]:
    return [encoded(noise(seconds, seed + number)) for number, seconds in enumerate(LENGTHS_S)]


class Load:
    """`jobs` submissions by `clients` threads; each waits for its job before the next one."""

    def __init__(self, url: str, hook_url: str, book: Book, seed: int) -> None:
        self._url, self._hook_url, self._book, self._seed = url, hook_url, book, seed
        self._recordings = recordings(seed)
        self.done = 0

    def run(self, jobs: int, clients: int) -> None:
        with ThreadPoolExecutor(clients) as pool:
            for _ in pool.map(self._one, range(jobs)):
                self.done += 1

    def right_texts(self) -> dict[int, str]:
        """Of every recording, while nothing is disturbed."""
        texts = {}
        with httpx.Client(base_url=self._url, timeout=60) as client:
            for number in range(len(self._recordings)):
                promise = self._book.ask(f"right-{number}", number)
                job_id = self._submit(client, promise, {})
                self._await(client, job_id)
                texts[number] = client.get(f"/v1/jobs/{job_id}/transcript", params={"format": "text"}).text
        return texts

    def _one(self, number: int) -> None:
        chance = random.Random(self._seed * 1_000_003 + number)
        recording = chance.randrange(RARE) if chance.random() > 0.02 else RARE
        promise = self._book.ask(f"job-{number}", recording)
        options = {"webhook_url": self._hook_url} if chance.random() < HOOKED_SHARE else {}
        with httpx.Client(base_url=self._url, timeout=15) as client:
            job_id = self._submit(client, promise, options)
            if chance.random() < CANCELED_SHARE:
                time.sleep(chance.random())
                promise.was_canceled = True
                self._ask(client, "POST", f"/v1/jobs/{job_id}/cancel")
            self._await(client, job_id)

    def _submit(self, client: httpx.Client, promise: Promise, options: dict[str, str]) -> str:
        answer = self._ask(
            client,
            "POST",
            "/v1/jobs",
            # Nothing is to be taken over from an equal recording: each job is to be worked on.
            params={"vad": "off", "reuse": "off", "tag": promise.key} | options,
            content=self._recordings[promise.recording],
            headers={"Idempotency-Key": promise.key, "Content-Type": "audio/wav"},
        )
        job_id = str(answer["id"])
        self._book.answered(promise, job_id)
        return job_id

    def _await(self, client: httpx.Client, job_id: str) -> None:
        deadline = time.monotonic() + _GIVE_UP_S
        while time.monotonic() < deadline:
            job = self._ask(client, "GET", f"/v1/jobs/{job_id}", params={"wait": "5"})
            self._book.saw(job_id, str(job.get("status")))
            if job.get("status") in TERMINAL or job.get("code") == "not_found":
                return
            time.sleep(_PAUSE_S)

    def _ask(self, client: httpx.Client, method: str, path: str, **request: Any) -> dict[str, Any]:
        """Again and again, until there is an answer that is the service's last word."""
        deadline = time.monotonic() + _GIVE_UP_S
        while time.monotonic() < deadline:
            try:
                answer = client.request(method, path, **request)
            except httpx.TransportError:
                time.sleep(_PAUSE_S)
                continue
            if answer.status_code < 500:
                found: dict[str, Any] = answer.json()
                return found
            time.sleep(min(2.0, float(answer.headers.get("Retry-After", 1))))
        raise TimeoutError(f"{method} {path} had no answer for {_GIVE_UP_S:g} s")


@contextmanager
def hook(book: Book, seed: int) -> Iterator[str]:
    """The receiver's address. What it refuses it has read all the same, so that goes into the book too."""
    chance, lock = random.Random(seed), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            book.called(self.headers["webhook-id"], body)
            with lock:
                is_refused = chance.random() < REFUSED_SHARE
            self.send_response(500 if is_refused else 204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
