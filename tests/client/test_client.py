"""Both clients against a real API: every call, and the same logic under both."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ananse_client import AsyncClient, Client, Event, errors
from shared.job import Failure
from tests.chaos.sounds import sound
from tests.client.conftest import QUICK, Served
from tests.support.worker_hand import window

pytestmark = [pytest.mark.redis, pytest.mark.service]


@pytest.fixture(params=["sync", "async"])
def any_client(request: pytest.FixtureRequest, served: Served) -> Iterator[object]:
    """Either client behind the calls of the one that waits."""
    if request.param == "sync":
        with Client(served.url, patience=QUICK) as client:
            yield client
    else:
        yield Awaited(served.url)


class Awaited:
    """An AsyncClient whose calls are awaited for the test."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __getattr__(self, name: str) -> Callable[..., object]:
        async def call(*arguments: object, **options: object) -> object:
            async with AsyncClient(self._url, patience=QUICK) as client:
                answer = getattr(client, name)(*arguments, **options)
                return [event async for event in answer] if name == "events" else await answer

        return lambda *arguments, **options: asyncio.run(call(*arguments, **options))


def test_a_recording_is_submitted_with_its_options(any_client: Client, recording: Path) -> None:
    told: list[tuple[int, int]] = []

    job = any_client.submit(
        recording,
        on_upload=lambda *sent: told.append(sent),
        word_timestamps=True,
        metadata={"order": "7", "who": "ñandú"},
        prompt="ɛ" * 1000,
        language=None,
        start_s=1.5,
    )

    size = recording.stat().st_size
    assert (job.status, job.media.name, job.media.size_bytes) == (
        "queued",
        recording.name,
        size,
    )
    assert job.metadata == {"order": "7", "who": "ñandú"}
    assert job.raw["options"]["word_timestamps"] is True
    assert job.raw["options"]["start_s"] == 1.5
    assert told[-1] == (size, size)
    assert [sent for sent, _ in told] == sorted(sent for sent, _ in told)


def test_the_end_is_waited_for_and_the_transcript_read(
    any_client: Client, served: Served, recording: Path
) -> None:
    job = any_client.submit(recording, reuse="off")
    timer = threading.Timer(0.3, lambda: served.hand.complete(job.id, window(0, 0.0, 1.5, "Good morning.")))
    timer.start()

    ended = any_client.wait(job.id, timeout_s=20)
    timer.join()

    assert (ended.status, ended.language and ended.language.code) == ("completed", "en")
    transcript = any_client.transcript(job.id)
    assert [(part.id, part.start, part.end, part.text) for part in transcript.segments] == [
        (0, 0.0, 1.5, "Good morning.")
    ]
    assert any_client.rendered(job.id, "srt").startswith("1\n00:00:00,000 --> 00:00:01,500\nGood")


def test_patience_ends_and_the_job_goes_on(any_client: Client, recording: Path) -> None:
    job = any_client.submit(recording, reuse="off")

    with pytest.raises(errors.WaitTimeout, match="goes on"):
        any_client.wait(job.id, timeout_s=0.2)

    assert any_client.job(job.id).status == "queued"


def test_patience_ends_while_events_are_told(any_client: Client, recording: Path) -> None:
    told: list[Event] = []

    with pytest.raises(errors.WaitTimeout):
        any_client.transcribe(recording, timeout_s=0.2, on_event=told.append, reuse="off")

    assert [event.status for event in told] == ["queued"]


def test_events_tell_all_of_it(any_client: Client, served: Served, recording: Path) -> None:
    job = any_client.submit(recording, reuse="off")
    served.hand.complete(job.id)

    told = list(any_client.events(job.id))

    assert [event.status for event in told if event.kind == "state"] == ["queued", "running", "completed"]
    (heard,) = [event for event in told if event.kind == "segments"]
    assert [part.text for part in heard.segments] == ["Good morning."]
    assert told[-1].is_end
    assert list(any_client.events(job.id, after=told[1].id)) == told[2:]


def test_a_failed_job_is_raised_by_its_code(any_client: Client, served: Served, recording: Path) -> None:
    key = f"key-{type(any_client).__name__}"
    job = any_client.submit(recording, idempotency_key=key, reuse="off")
    served.hand.fail(job.id, Failure("no_audio", "The file holds no audio track.", False))

    with pytest.raises(errors.NoAudio, match="holds no audio") as caught:
        any_client.transcribe(recording, idempotency_key=key, reuse="off")

    assert caught.value.problem.job_id == job.id
    assert caught.value.retryable is False
    assert any_client.retry(job.id).retry_of == job.id


def test_jobs_are_listed_canceled_deleted(any_client: Client, recording: Path) -> None:
    tag = f"tag-{type(any_client).__name__}"
    first, second = (any_client.submit(recording, tag=tag, reuse="off") for _ in range(2))

    page = any_client.jobs(tag=tag, limit=1, created_after=datetime.now(UTC) - timedelta(hours=1))
    rest = any_client.jobs(tag=tag, cursor=page.next_cursor)

    assert [job.id for job in (*page.jobs, *rest.jobs)] == [second.id, first.id]
    assert any_client.cancel(first.id).status == "canceled"
    assert any_client.cancel(first.id).status == "canceled"
    assert any_client.delete(first.id) is None
    with pytest.raises(errors.NotFound) as caught:
        any_client.job(first.id)
    assert caught.value.request_id.startswith("req_")
    assert list(any_client.deliveries(second.id)) == []


def test_refusals_are_classes(any_client: Client, recording: Path) -> None:
    with pytest.raises(errors.UnknownModel):
        any_client.submit(recording, model="large")
    with pytest.raises(errors.InvalidOption, match="priority"):
        any_client.submit(recording, priority=99)
    with pytest.raises(FileNotFoundError):
        any_client.submit(recording.with_name("missing.wav"))


def test_an_address_is_sent_as_one(any_client: Client) -> None:
    """Whether this server fetches it or not."""
    with suppress(errors.UrlIngestUnavailable):
        assert any_client.submit("https://example.org/talk.mp3", language="en").id


def test_models_are_what_live_workers_hold(any_client: Client, served: Served) -> None:
    served.hand.come_up(("en",))

    (model,) = any_client.models()

    assert (model.name, model.live, model.rtfx) == ("synthetic-en", True, 12.5)
    assert model.abilities is not None
    assert model.abilities.languages == ("en",)


def test_a_worker_does_the_rest(working: Served, tmp_path: Path) -> None:
    made = sound(tmp_path / "noise.wav", 12.0, 7)
    heard: list[Event] = []
    with Client(working.url, patience=QUICK) as client:
        transcript = client.transcribe(made.path, on_event=heard.append, vad="off")

    assert transcript.text == made.text
    assert sum(len(event.segments) for event in heard) == len(transcript.segments)
