"""Clients of either side: each sends its next recording when the last one is answered."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass

import httpx

from benchmarks.bento.recordings import Recording

PAUSE_S = 1.0
"""After a refusal: BentoML's 429 does not say how long to wait."""
PATIENCE_S = 900.0

_WAIT_S = 30
_AGAIN = {"429", "500", "502", "503", "504", "connection cut"}


@dataclass(frozen=True, slots=True)
class Reply:
    """A transcript, or how there was none."""

    text: str | None
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a recording. `refused` are the replies after which it was asked for again."""

    recording: Recording
    reply: Reply
    refused: tuple[str, ...]
    took_s: float


@dataclass(frozen=True, slots=True)
class Round:
    answers: tuple[Answer, ...]
    took_s: float


Ask = Callable[[httpx.AsyncClient, Recording], Awaitable[tuple[Reply, tuple[str, ...]]]]


async def ask_for_all(
    url: str,
    recordings: Sequence[Recording],
    clients: int,
    ask: Ask,
    on_transcript: Callable[[int], None] = lambda count: None,
) -> Round:
    """`on_transcript` is told with each transcript how many there are."""
    waiting, answers, began = iter(recordings), list[Answer](), time.perf_counter()

    async def work() -> None:
        # A connection for each request, for both sides: none can be found closed on the next one.
        limits = httpx.Limits(max_keepalive_connections=0)
        async with httpx.AsyncClient(
            base_url=url, timeout=PATIENCE_S, limits=limits, trust_env=False
        ) as client:
            for recording in _shared(waiting):
                asked = time.perf_counter()
                reply, refused = await ask(client, recording)
                answers.append(Answer(recording, reply, refused, time.perf_counter() - asked))
                if reply.text is not None:
                    on_transcript(sum(answer.reply.text is not None for answer in answers))

    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(work())
    return Round(tuple(answers), time.perf_counter() - began)


def _shared(waiting: Iterator[Recording]) -> Iterator[Recording]:
    while (recording := next(waiting, None)) is not None:
        yield recording


async def transcribe(client: httpx.AsyncClient, recording: Recording) -> tuple[Reply, tuple[str, ...]]:
    """`POST /transcribe`, which both sides have; the first answer is taken for what it is."""
    return await _transcribe(client, recording), ()


async def transcribe_patiently(
    client: httpx.AsyncClient, recording: Recording, pause_s: float = PAUSE_S
) -> tuple[Reply, tuple[str, ...]]:
    """The same; who is refused or cut off sends the recording again after a pause."""
    return await _again_and_again(lambda: _transcribe(client, recording), pause_s)


async def submit_and_wait(client: httpx.AsyncClient, recording: Recording) -> tuple[Reply, tuple[str, ...]]:
    """`POST /v1/jobs`, then waiting for the transcript. Any failure is the end."""
    job, failure = await _submit(client, recording, key=secrets.token_hex(8))
    return (await _wait_for(client, job) if job else Reply(None, failure)), ()


async def submit_and_wait_patiently(
    client: httpx.AsyncClient, recording: Recording, pause_s: float = PAUSE_S
) -> tuple[Reply, tuple[str, ...]]:
    """The same; who is cut off submits again under the same key, or asks for the job again."""
    key, refused = secrets.token_hex(8), list[str]()
    while True:
        job, failure = await _submit(client, recording, key)
        if job:
            break
        if failure not in _AGAIN:
            return Reply(None, failure), tuple(refused)
        refused.append(failure)
        await asyncio.sleep(pause_s)
    reply, more = await _again_and_again(lambda: _wait_for(client, job), pause_s)
    return reply, (*refused, *more)


async def _again_and_again(
    ask: Callable[[], Awaitable[Reply]], pause_s: float
) -> tuple[Reply, tuple[str, ...]]:
    refused, began = list[str](), time.perf_counter()
    while True:
        reply = await ask()
        if reply.failure not in _AGAIN or time.perf_counter() - began > PATIENCE_S:
            return reply, tuple(refused)
        refused.append(reply.failure)
        await asyncio.sleep(pause_s)


async def _transcribe(client: httpx.AsyncClient, recording: Recording) -> Reply:
    files = {"audio_file": (recording.name, recording.wav, "audio/wav")}
    answer, failure = await _send(client.post("/transcribe", files=files))
    if answer is None:
        return Reply(None, failure)
    if answer.status_code == 202:
        # Ours, when the wait is over and the job goes on.
        return await _wait_for(client, answer.json()["id"])
    if answer.status_code != 200:
        return Reply(None, str(answer.status_code))
    text = answer.json().get("transcript")
    return Reply(None, "200 with an error") if text is None else Reply(text)


async def _submit(client: httpx.AsyncClient, recording: Recording, key: str) -> tuple[str | None, str]:
    """The job's id, or how there is none."""
    files = {"file": (recording.name, recording.wav, "audio/wav")}
    answer, failure = await _send(client.post("/v1/jobs", files=files, headers={"Idempotency-Key": key}))
    if answer is None:
        return None, failure
    if answer.status_code != 202:
        return None, str(answer.status_code)
    return str(answer.json()["id"]), ""


async def _wait_for(client: httpx.AsyncClient, job_id: str) -> Reply:
    while True:
        path = f"/v1/jobs/{job_id}/transcript?format=text&wait={_WAIT_S}"
        answer, failure = await _send(client.get(path))
        if answer is None:
            return Reply(None, failure)
        if answer.status_code == 200:
            return Reply(answer.text)
        if answer.status_code != 409 or answer.json()["code"] != "not_ready":
            return Reply(None, str(answer.status_code))


async def _send(request: Awaitable[httpx.Response]) -> tuple[httpx.Response | None, str]:
    try:
        return await request, ""
    except httpx.TimeoutException:
        return None, "no answer"
    except httpx.TransportError:
        return None, "connection cut"
