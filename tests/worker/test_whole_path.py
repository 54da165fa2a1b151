"""Real recordings through real worker processes on a real Redis: what ends, what is killed, what goes on."""

import json
import signal
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

import jiwer
import numpy as np
import pytest
import soundfile
import torch

from shared import job_files
from shared.job import Status
from shared.redis_store import RedisStore, connect
from shared.settings import Settings
from tests.support import oracle
from tests.support.redis_server import durable_redis
from tests.support.service import MODEL, SAMPLES, Service
from tests.support.waiting import wait_until
from tests.support.worker_process import WorkerProcess, worker_process
from tests.worker.receiver import http, receiver

pytestmark = [
    pytest.mark.redis,
    pytest.mark.model,
    pytest.mark.service,
    pytest.mark.slow,
    pytest.mark.calm,
    pytest.mark.timeout(900),
]

SAMPLE_RATE = 16_000


def impatient(settings: Settings, **more: object) -> Settings:
    """A dead worker is noticed after two seconds, a part is a minute long."""
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    ours = {
        "lease_s": 2,
        "hint_s": 1,
        "sweep_s": 0.2,
        "part_s": 60,
        "batch_size": 4,
        "webhook_allow": (ip_network("127.0.0.0/8"),),
        "webhook_retry_s": (0.1, 0.1),
        "webhook_secret": "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
    }
    return Settings(**(given | ours | more))


@pytest.fixture
def service(settings: Settings, store: RedisStore) -> Service:
    return Service(impatient(settings), store)


SMALL_WINDOWS = {"ANANSE_MODELS": f"{MODEL}={SAMPLES.parent / MODEL}?window_s=5"}
"""Many windows, so that something happens in the middle of a file."""


@pytest.fixture
def worker(service: Service, tmp_path: Path) -> Iterator[WorkerProcess]:
    with worker_process(service.settings, service.fleet, tmp_path / "worker.log") as process:
        yield process


def windows_run(service: Service) -> float:
    """By the workers that live now, as they said themselves."""
    return sum(worker.engine[MODEL]["windows"] for worker in service.fleet.live())


def test_recordings_become_their_words(service: Service, worker: WorkerProcess) -> None:
    """As well as HF's generate does when it is handed every sentence by itself."""
    references = oracle.references()
    jobs = {name: service.submit(SAMPLES / name, word_timestamps=True) for name in references}

    texts = []
    for name, job_id in jobs.items():
        job = service.ended(job_id)
        assert job.status is Status.COMPLETED, job.failure
        transcript = service.transcript(job_id)
        texts.append(oracle.words(transcript.text))
        times = [(segment.start, segment.end) for segment in transcript.segments]
        assert times == sorted(times)
        assert all(0 <= start < end <= references[name]["seconds"] + 0.01 for start, end in times)
        assert job.done_s == pytest.approx(job.total_s)
        wait_until(lambda job_id=job_id: not service.blobs.exists(job_files.part_audio(job_id, "part-0")))

    reference = " ".join(oracle.words(references[name]["text"]) for name in jobs)
    ours = jiwer.wer(reference, " ".join(texts))
    dtype = getattr(torch, service.jobs.get(job_id).model.dtype)  # type: ignore[union-attr]
    theirs = jiwer.wer(reference, oracle.transcribe(references, dtype))
    assert ours <= theirs + 0.01


def test_a_killed_worker_s_job_is_ended_by_another_and_no_window_is_done_again(
    service: Service, tmp_path: Path
) -> None:
    with worker_process(
        service.settings, service.fleet, tmp_path / "first.log", **SMALL_WINDOWS, ANANSE_BATCH_SIZE="1"
    ) as first:
        job_id = service.submit(SAMPLES / "five-minutes.flac", end_s=150)
        service.wait_for_windows(job_id, 8)
        first.kill()
        service.fleet.leave(next(iter(service.fleet.live())).name)
    kept = len(service.jobs.windows(job_id)) + finished_windows(service, job_id)

    with worker_process(service.settings, service.fleet, tmp_path / "second.log"):
        job = service.ended(job_id)
        wait_until(lambda: windows_run(service) > 0)
        needed = total_windows(service, job_id)
        assert job.status is Status.COMPLETED
        assert job.attempt > 1
        wait_until(lambda: windows_run(service) >= needed - kept)
        assert windows_run(service) == needed - kept


def finished_windows(service: Service, job_id: str) -> int:
    """Windows of parts that were finished as a whole."""
    folder = Path(service.blobs._root, job_files.folder(job_id))
    return sum(len(json.loads(path.read_text())) for path in folder.glob("part-*.json"))


def total_windows(service: Service, job_id: str) -> int:
    """From the parts' own layouts, as `prepare` offered them."""
    steps = service.store.client.smembers(service.store.key("steps", job_id))
    bodies = [
        service.store.client.hget(service.store.key("step", job_id, step), "body")
        for step in steps
        if step.startswith("part")
    ]
    return sum(len(json.loads(body)["layout"]) for body in bodies)


def test_a_worker_told_to_stop_hands_its_work_back(service: Service, tmp_path: Path) -> None:
    with worker_process(
        service.settings, service.fleet, tmp_path / "first.log", **SMALL_WINDOWS, ANANSE_BATCH_SIZE="1"
    ) as first:
        job_id = service.submit(SAMPLES / "five-minutes.flac", end_s=150)
        service.wait_for_windows(job_id, 4)
        assert first.stop(timeout_s=30) == 0
    assert service.jobs.get(job_id).status is Status.RUNNING

    with worker_process(service.settings, service.fleet, tmp_path / "second.log"):
        job = service.ended(job_id)
    assert job.status is Status.COMPLETED
    # Handing back is no failure: it does not count as another attempt.
    assert job.attempt == 1


def test_a_frozen_worker_is_fenced_when_it_wakes(service: Service, tmp_path: Path) -> None:
    # The same text from both: the same windows, and numbers in which a batch of one is like a batch of eight.
    alike = SMALL_WINDOWS | {"ANANSE_DTYPE": "float32"}
    with (
        worker_process(
            service.settings, service.fleet, tmp_path / "a.log", **alike, ANANSE_BATCH_SIZE="1"
        ) as frozen,
        worker_process(service.settings, service.fleet, tmp_path / "b.log", **alike),
    ):
        job_ids = [service.submit(SAMPLES / "minute.flac") for _ in range(4)]
        service.wait_for_windows(job_ids[0], 1)
        frozen.signal(signal.SIGSTOP)
        jobs = [service.ended(job_id) for job_id in job_ids]
        texts = [service.transcript(job_id).text for job_id in job_ids]
        frozen.signal(signal.SIGCONT)
        frozen.stop()
        assert [service.jobs.get(job_id) for job_id in job_ids] == jobs
        assert [service.transcript(job_id).text for job_id in job_ids] == texts
        assert len(set(texts)) == 1


def test_a_killed_redis_comes_back_and_the_job_goes_on(settings: Settings, tmp_path: Path) -> None:
    with durable_redis() as redis:
        own = impatient(settings, redis_url=redis.url)
        with connect(own.redis_url, retries=6) as client:
            service = Service(own, RedisStore(client))
            with worker_process(
                own, service.fleet, tmp_path / "worker.log", **SMALL_WINDOWS, ANANSE_BATCH_SIZE="1"
            ):
                job_ids = [service.submit(SAMPLES / name) for name in ("five-minutes.flac", "minute.flac")]
                for _ in range(3):
                    service.wait_for_windows(job_ids[0], len(service.jobs.windows(job_ids[0])) + 2)
                    redis.kill()
                    redis.start()
                jobs = [service.ended(job_id) for job_id in job_ids]
                later = service.ended(service.submit(SAMPLES / "short-1.flac"))
    assert [job.status for job in (*jobs, later)] == [Status.COMPLETED] * 3


def test_a_canceled_job_stops_the_model(service: Service, tmp_path: Path) -> None:
    with worker_process(service.settings, service.fleet, tmp_path / "worker.log", **SMALL_WINDOWS):
        job_id = service.submit(SAMPLES / "five-minutes.flac")
        service.wait_for_windows(job_id, 2)
        assert service.ledger.cancel(job_id, webhook=None, retention_s=60)
        wait_until(lambda: all(worker.busy == 0 for worker in service.fleet.live()), 30)
        total = total_windows(service, job_id)
        assert windows_run(service) < total
        assert service.jobs.get(job_id).status is Status.CANCELED


def test_a_short_recording_never_waits_behind_long_ones(service: Service, tmp_path: Path) -> None:
    """Even where there is room for one part at a time, and a long file has taken it."""
    with worker_process(
        service.settings,
        service.fleet,
        tmp_path / "worker.log",
        **SMALL_WINDOWS,
        ANANSE_PART_SLOTS="1",
        ANANSE_PREPARE_SLOTS="1",
        ANANSE_PART_S="600",
    ):
        long = [service.submit(SAMPLES / "five-minutes.flac") for _ in range(2)]
        service.wait_for_windows(long[0], 1)
        short = service.ended(service.submit(SAMPLES / "short-1.flac"))
        still = [service.jobs.get(job_id).status for job_id in long]
    assert short.status is Status.COMPLETED
    assert still == [Status.RUNNING] * 2


@pytest.mark.parametrize("sound", ["silence", "noise", "hum"])
def test_no_speech_gives_no_words(
    service: Service, worker: WorkerProcess, tmp_path: Path, sound: str
) -> None:
    seconds = np.arange(20 * SAMPLE_RATE) / SAMPLE_RATE
    samples = {
        "silence": np.zeros_like(seconds),
        "noise": np.random.default_rng(0).normal(0, 0.1, len(seconds)),
        "hum": 0.3 * np.sin(2 * np.pi * 50 * seconds),
    }[sound]
    path = tmp_path / f"{sound}.wav"
    soundfile.write(path, samples, SAMPLE_RATE)

    job = service.ended(service.submit(path))

    assert job.status is Status.COMPLETED
    assert service.transcript(job.id).text == ""
    assert service.transcript(job.id).duration_s == pytest.approx(20, abs=0.01)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "empty_audio"),
        (b"This is a letter, not a sound.\n" * 20, "unsupported_format"),
        (b"ffconcat version 1.0\nfile 'other.wav'\n", "unsupported_format"),
        (b"RIFF\xff\xff\xff\x7fWAVEfmt ", "corrupt_audio"),
    ],
)
def test_bad_media_has_its_code(
    service: Service, worker: WorkerProcess, tmp_path: Path, content: bytes, code: str
) -> None:
    path = tmp_path / "letter.wav"
    path.write_bytes(content)
    job = service.ended(service.submit(path))
    assert job.status is Status.FAILED
    assert job.failure is not None
    assert job.failure.code == code


def test_what_the_model_cannot_do_has_its_code(service: Service, worker: WorkerProcess) -> None:
    job_id = service.submit(SAMPLES / "short-1.flac", language="tw")
    assert service.ended(job_id).failure.code == "unsupported_option"  # type: ignore[union-attr]


def test_the_webhook_arrives_after_two_refusals_with_one_body(
    service: Service, worker: WorkerProcess
) -> None:
    with receiver(http(500), http(503), http(204)) as hook:
        job = service.ended(service.submit(SAMPLES / "short-1.flac", webhook_url=hook.url()))
        wait_until(lambda: service.jobs.get(job.id).webhook_status == "delivered", 30)
    heads, bodies = zip(*(request.split(b"\r\n\r\n", 1) for request in hook.requests), strict=True)
    assert len(set(bodies)) == 1
    assert (
        len({line for head in heads for line in head.split(b"\r\n") if line.startswith(b"webhook-id")}) == 1
    )
    assert [delivery.status for delivery in service.jobs.deliveries(job.id)] == [500, 503, 204]


def test_every_model_has_its_queue_and_any_worker_prepares(service: Service, tmp_path: Path) -> None:
    """The second worker alone serves `second`; the first may well cut its files."""
    with (
        worker_process(service.settings, service.fleet, tmp_path / "a.log"),
        worker_process(
            service.settings,
            service.fleet,
            tmp_path / "b.log",
            ANANSE_MODELS=f"second={SAMPLES.parent / MODEL}",
        ),
    ):
        names = [MODEL, "second"] * 2
        job_ids = [service.submit(SAMPLES / "short-1.flac", model=name) for name in names]
        jobs = [service.ended(job_id) for job_id in job_ids]
    assert [job.model.name for job in jobs if job.model] == names
    assert len({service.transcript(job_id).text for job_id in job_ids}) == 1


def test_a_job_for_a_model_without_a_worker_waits_for_one(service: Service, tmp_path: Path) -> None:
    with worker_process(service.settings, service.fleet, tmp_path / "a.log"):
        job_id = service.submit(SAMPLES / "short-1.flac", model="second")
        wait_until(lambda: service.jobs.get(job_id).status is Status.RUNNING)
        with worker_process(
            service.settings,
            service.fleet,
            tmp_path / "b.log",
            ANANSE_MODELS=f"second={SAMPLES.parent / MODEL}",
        ):
            assert service.ended(job_id).status is Status.COMPLETED
