"""OpenAI's own client, unchanged but for `base_url`, against the API as it is served."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import openai
import pysubs2
import pytest
from openai import OpenAI

from shared.api_keys import Scope
from shared.blobs import open_blobs
from shared.fleet import Fleet
from shared.redis_store import RedisStore
from shared.settings import Settings
from tests.chaos.sounds import Sound, sound
from tests.client.conftest import Served
from tests.client.conftest import served as served
from tests.client.conftest import working as working
from tests.support.api_server import api_server
from tests.support.keys import make_key, ring_of
from tests.support.service import SAMPLES
from tests.support.waiting import wait_until
from tests.support.worker_hand import window
from tests.support.worker_process import worker_process

pytestmark = [pytest.mark.redis, pytest.mark.service]

NOISE = {"vad": "off"}
"""The spelling worker is given noise, which is no speech."""


@pytest.fixture
def client(working: Served) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{working.url}/v1", api_key="any", max_retries=0) as client:
        yield client


@pytest.fixture
def idle(served: Served) -> Iterator[OpenAI]:
    """Of a service without a worker."""
    with OpenAI(base_url=f"{served.url}/v1", api_key="any", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Sound:
    return sound(tmp_path_factory.mktemp("openai") / "noise.wav", 12.0, 21)


def transcribe(client: OpenAI, path: Path, **options: Any) -> Any:
    return client.audio.transcriptions.create(
        file=path, **({"model": "whisper-1", "extra_body": NOISE} | options)
    )


def test_json(client: OpenAI, made: Sound) -> None:
    answer = transcribe(client, made.path)

    assert answer.text == made.text
    assert answer.usage.type == "duration"
    assert answer.usage.seconds == 12


def test_verbose_json(client: OpenAI, made: Sound) -> None:
    answer = transcribe(client, made.path, response_format="verbose_json", language="en", temperature=0)

    assert (answer.text, answer.language, answer.duration) == (made.text, "english", 12.0)
    assert [part.id for part in answer.segments] == list(range(len(answer.segments)))
    assert all(part.end > part.start and part.seek == round(part.start * 100) for part in answer.segments)
    assert answer.words is None


def test_text(client: OpenAI, made: Sound) -> None:
    assert transcribe(client, made.path, response_format="text") == f"{made.text}\n"


@pytest.mark.parametrize("format", ["srt", "vtt"])
def test_subtitles(client: OpenAI, made: Sound, format: str) -> None:
    cues = pysubs2.SSAFile.from_string(transcribe(client, made.path, response_format=format), format_=format)

    assert " ".join(cue.text for cue in cues) == made.text


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
def test_translations(client: OpenAI, made: Sound) -> None:
    answer = client.audio.translations.create(
        file=made.path, model="whisper-1", response_format="verbose_json", extra_body=NOISE
    )

    assert (answer.text, answer.language) == (made.text, "english")


def test_streamed(client: OpenAI, tmp_path: Path) -> None:
    made = sound(tmp_path / "streamed.wav", 17.0, 22)
    events = list(transcribe(client, made.path, stream=True))

    assert {event.type for event in events[:-1]} == {"transcript.text.delta"}
    assert (events[-1].type, events[-1].text) == ("transcript.text.done", made.text)
    assert sorted("".join(event.delta for event in events[:-1]).split()) == sorted(made.text.split())


def test_a_stream_is_spaced_as_its_script_is(idle: OpenAI, served: Served, made: Sound) -> None:
    """Windows of Japanese follow one another without a space."""

    def work() -> None:
        wait_until(lambda: jobs_of(served, "japanese"), 60)
        (job,) = jobs_of(served, "japanese")
        said = ("今日は", "天気が", "It works.", "いいので。")
        served.hand.complete(job["id"], *(window(n, n, n + 1, text) for n, text in enumerate(said)))

    thread = threading.Thread(target=work)
    thread.start()
    events = list(transcribe(idle, made.path, stream=True, extra_body={"tag": "japanese"}))
    thread.join()

    assert [event.delta for event in events[:-1]] == ["今日は", "天気が", " It works.", " いいので。"]
    assert "".join(event.delta for event in events[:-1]) == events[-1].text


def test_models_are_listed_its_way(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["synthetic-en"]


def test_awaited(working: Served, made: Sound) -> None:
    async def ask() -> str:
        async with openai.AsyncOpenAI(base_url=f"{working.url}/v1", api_key="any") as client:
            answer = await client.audio.transcriptions.create(
                file=made.path, model="synthetic-en", extra_body=NOISE
            )
            return str(answer.text)

    assert asyncio.run(ask()) == made.text


def test_options_of_ours_and_of_theirs(idle: OpenAI, served: Served, made: Sound) -> None:
    """What cannot be seen in an answer is seen in the job."""

    def ask() -> None:
        with suppress(openai.APIError):
            transcribe(
                idle,
                made.path,
                prompt="Kofi\nand " * 300,
                language="english",
                timestamp_granularities=["word", "segment"],
                response_format="verbose_json",
                chunking_strategy={
                    "type": "server_vad",
                    "threshold": 0.4,
                    "silence_duration_ms": 700,
                    "prefix_padding_ms": 200,
                },
                extra_body={"tag": "asked", "priority": "3"},
            )

    thread = threading.Thread(target=ask)
    thread.start()
    wait_until(lambda: jobs_of(served, "asked"))
    (job,) = jobs_of(served, "asked")
    httpx.post(f"{served.url}/v1/jobs/{job['id']}/cancel")
    thread.join()

    options = job["options"]
    assert options["word_timestamps"] is True
    assert (options["language"], options["priority"]) == ("en", 3)
    assert (options["vad_threshold"], options["vad_min_silence_s"], options["vad_pad_s"]) == (0.4, 0.7, 0.2)
    assert len(options["prompt"]) == 1000
    assert options["prompt"].endswith("Kofi and")


def jobs_of(served: Served, tag: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = httpx.get(f"{served.url}/v1/jobs", params={"tag": tag}).json()["jobs"]
    return found


@pytest.mark.parametrize(
    ("options", "kind", "code", "param"),
    [
        ({"model": "large"}, openai.NotFoundError, "unknown_model", None),
        ({"response_format": "docx"}, openai.BadRequestError, "invalid_option", "response_format"),
        (
            {"timestamp_granularities": ["word"]},
            openai.BadRequestError,
            "invalid_option",
            "timestamp_granularities[]",
        ),
        ({"response_format": "diarized_json"}, openai.BadRequestError, "unsupported_option", None),
        ({"include": ["logprobs"]}, openai.BadRequestError, "unsupported_option", None),
        ({"temperature": 7}, openai.BadRequestError, "invalid_option", "temperature"),
        ({"extra_body": {"mood": "fine"}}, openai.BadRequestError, "invalid_option", "mood"),
        ({"chunking_strategy": {"type": "x"}}, openai.BadRequestError, "invalid_option", "chunking_strategy"),
    ],
)
def test_refusals_are_its_exceptions(
    idle: OpenAI,
    made: Sound,
    options: dict[str, Any],
    kind: type[openai.APIStatusError],
    code: str,
    param: str | None,
) -> None:
    with pytest.raises(kind) as caught:
        transcribe(idle, made.path, **options)

    assert (caught.value.code, caught.value.param) == (code, param)
    assert caught.value.type == "invalid_request_error"
    assert caught.value.request_id


def test_a_failed_job_is_its_exception(client: OpenAI, tmp_path: Path) -> None:
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"no sound at all" * 100)

    with pytest.raises(openai.BadRequestError) as caught:
        transcribe(client, broken)
    with pytest.raises(openai.APIError, match="format") as in_stream:
        list(transcribe(client, broken, stream=True))

    assert caught.value.code == "unsupported_format"
    assert in_stream.value.code == "unsupported_format"


@pytest.mark.parametrize("stream", [False, True])
def test_going_away_cancels(served: Served, made: Sound, stream: bool) -> None:
    tag = f"gone-{stream}"
    with pytest.raises(httpx.ReadTimeout):
        _ask(served, made, tag, timeout_s=1.5, stream=str(stream).lower())

    wait_until(lambda: [job["status"] for job in jobs_of(served, tag)] == ["canceled"])


def test_who_did_not_make_the_job_does_not_cancel_it(served: Served, made: Sound) -> None:
    headers = {"Idempotency-Key": "openai-1"}
    job = httpx.post(
        f"{served.url}/v1/jobs",
        files={"file": made.path.read_bytes()},
        data={"tag": "shared", "task": "transcribe"},
        headers=headers,
    ).json()
    with pytest.raises(httpx.ReadTimeout):
        _ask(served, made, "shared", timeout_s=1.5, **headers)
    wait_until(lambda: 'ananse_waiting_clients{kind="openai"} 0.0' in httpx.get(f"{served.url}/metrics").text)
    served.hand.begin(job["id"])
    assert httpx.get(f"{served.url}/v1/jobs/{job['id']}").json()["status"] == "running"


def _ask(
    served: Served, made: Sound, tag: str, timeout_s: float, stream: str = "false", **headers: str
) -> None:
    with httpx.stream(
        "POST",
        f"{served.url}/v1/audio/transcriptions",
        files={"file": made.path.read_bytes()},
        data={"tag": tag, "stream": stream, "response_format": "text"},
        headers=headers,
        timeout=timeout_s,
    ) as answer:
        for _ in answer.iter_bytes():
            pass


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.calm
def test_words_of_the_real_model(redis_url: str, store: RedisStore, tmp_path: Path) -> None:
    settings = Settings(
        redis_url=redis_url, blob_url=f"file://{tmp_path}/blobs", state_dir=tmp_path / "state"
    )
    with (
        api_server(settings) as server,
        worker_process(settings, Fleet(store), tmp_path / "worker.log"),
        OpenAI(base_url=f"{server.url}/v1", api_key="any") as client,
    ):
        answer = client.audio.transcriptions.create(
            file=SAMPLES / "short-1.flac",
            model="whisper-1",
            response_format="verbose_json",
            timestamp_granularities=["word"],
        )

    assert answer.segments is None
    assert " ".join(word.word for word in answer.words or ()) == answer.text
    starts = [word.start for word in answer.words or ()]
    assert starts == sorted(starts)


def test_who_may_not_and_who_is_too_many_are_its_exceptions(
    redis_url: str, store: RedisStore, tmp_path: Path
) -> None:
    settings = Settings(redis_url=redis_url, blob_url=f"file://{tmp_path}", api_threads=4)
    ring = ring_of(store, open_blobs(settings))
    _, reader = make_key(ring, scopes=frozenset({Scope.READ}))
    _, hasty = make_key(ring, "kofi", limits={"requests_per_min": 1})
    with api_server(settings) as server:

        def ask(key: str) -> None:
            with OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0) as client:
                client.audio.transcriptions.create(file=("a.wav", b"sound"), model="large")

        for key, kind in ((reader, openai.PermissionDeniedError), ("wrong", openai.AuthenticationError)):
            with pytest.raises(kind):
                ask(key)
        with pytest.raises(openai.NotFoundError):
            ask(hasty)
        with pytest.raises(openai.RateLimitError):
            ask(hasty)
