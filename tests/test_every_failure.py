"""The closed list of error codes, each produced: how jobs fail. The job, its webhook and the answer to one
who waits tell it in one word. That no code is missing: `test_every_code.py`."""

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from io import BytesIO
from ipaddress import ip_network
from pathlib import Path

import av
import psutil
import pytest

from shared import job_files
from shared.job import Status
from shared.ledger import FETCH, PREPARE, Ledger, part_step
from shared.redis_store import RedisStore
from shared.settings import Settings
from tests.support.codes import ELSEWHERE, Doors, Table, check_failure, opened, sound
from tests.support.waiting import wait_until
from tests.support.worker_context import MODEL
from tests.support.worker_process import PLAIN, worker_process
from tests.worker.receiver import http, receiver
from worker.engine.audio import DECODER
from worker.engine.values import Window

pytestmark = pytest.mark.redis

FAILURES: Table[str] = Table()
"""Each case gives the id of the job that failed."""

PUT_OFF: Table[str] = Table()
"""What ends no job and reaches no client: the step waits, and the log says why. A case gives its job's id."""

PART = part_step(0)
LOOPBACK = (ip_network("127.0.0.0/8"),)
_LOOK_S = 0.002


@pytest.fixture
def doors(code: str, settings: Settings, store: RedisStore) -> Iterator[Doors]:
    with opened(settings, store, (FAILURES | PUT_OFF)[code]) as doors:
        yield doors


def prepared(doors: Doors, content: bytes, **options: str) -> str:
    return doors.work(doors.submit(content, **options), PREPARE)


@FAILURES.produces("unsupported_format")
def a_letter(doors: Doors) -> str:
    return prepared(doors, b"This is a letter, not a sound.\n" * 20)


@FAILURES.produces("no_audio")
def a_silent_film(doors: Doors) -> str:
    return prepared(doors, film())


@FAILURES.produces("empty_audio")
def a_header_without_samples(doors: Doors) -> str:
    return prepared(doors, sound(seconds=0))


@FAILURES.produces("corrupt_audio")
def a_header_cut_in_the_middle(doors: Doors) -> str:
    return prepared(doors, b"RIFF\xff\xff\xff\x7fWAVEfmt ")


@FAILURES.produces("too_long", max_duration_s=1)
def a_second_more_than_is_taken(doors: Doors) -> str:
    return prepared(doors, sound(seconds=2))


@FAILURES.produces("decode_limit")
def a_sample_each_second(doors: Doors) -> str:
    return prepared(doors, sound(seconds=60, rate=1))


@FAILURES.produces("decode_timeout", decode_timeout_s=1)
def a_decoder_that_freezes(doors: Doors) -> str:
    with every_decoder_gets(signal.SIGSTOP):
        return prepared(doors, an_hour())


@FAILURES.produces("decoder_crashed")
def a_recording_that_crashes_three_decoders(doors: Doors) -> str:
    job_id = doors.submit(an_hour())
    with every_decoder_gets(signal.SIGSEGV):
        doors.work(job_id, PREPARE, PREPARE)
        assert doors.job(job_id)["status"] == Status.RUNNING
        return doors.work(job_id, PREPARE)


@FAILURES.produces("out_of_memory")
def a_window_that_fits_nowhere(doors: Doors) -> str:
    return doors.work(prepared(doors, sound()), PART, PART, script=no_room)


@FAILURES.produces("model_error")
def a_window_the_model_cannot_bear(doors: Doors) -> str:
    return doors.work(prepared(doors, sound()), PART, PART, script=broken)


@FAILURES.produces("worker_crashed", max_claims=1)
def a_job_whose_worker_died(doors: Doors) -> str:
    """Its lease lapses at once, as if nobody had ever beaten for it."""
    job_id = doors.submit(sound())
    assert Ledger(doors.store, lease_s=0.001).claim(job_id, PREPARE, "dead", max_claims=1).is_held
    wait_until(lambda: doors.job(doors.work(job_id, PREPARE))["status"] != Status.RUNNING)
    return job_id


@FAILURES.produces("media_missing")
def a_recording_that_is_gone(doors: Doors) -> str:
    job_id = doors.submit(sound())
    doors.parts.blobs.remove(job_files.media(job_id))
    return doors.work(job_id, PREPARE)


@FAILURES.produces("fetch_blocked")
def a_recording_of_our_own_network(doors: Doors) -> str:
    with receiver() as inside:
        return doors.work(doors.submit_url(inside.url()), FETCH)


@FAILURES.produces("fetch_failed", fetch_allow=LOOPBACK)
def a_server_that_is_broken(doors: Doors) -> str:
    with receiver(http(500)) as broken_server:
        return doors.work(doors.submit_url(broken_server.url()), FETCH, FETCH, FETCH)


@FAILURES.produces("fetch_refused", fetch_allow=LOOPBACK)
def a_recording_that_is_not_there(doors: Doors) -> str:
    with receiver(http(404)) as server:
        return doors.work(doors.submit_url(server.url()), FETCH)


@FAILURES.produces("fetch_timeout", fetch_allow=LOOPBACK, fetch_timeout_s=1)
def a_server_that_never_answers(doors: Doors) -> str:
    with receiver(lambda connection: connection.recv(1)) as silent:
        return doors.work(doors.submit_url(silent.url()), FETCH, FETCH)


@FAILURES.produces("fetch_too_large", fetch_allow=LOOPBACK, max_upload_bytes=1024)
def a_recording_larger_than_an_upload_may_be(doors: Doors) -> str:
    with receiver(http(200, bytes(1025))) as server:
        return doors.work(doors.submit_url(server.url()), FETCH)


@FAILURES.produces("unsupported_option")
def a_language_nobody_was_there_to_refuse(doors: Doors) -> str:
    return prepared(doors, sound(), language="tw")


@FAILURES.produces("internal")
def a_part_nobody_can_read(doors: Doors) -> str:
    """As a mistake of ours would leave it."""
    job_id = prepared(doors, sound())
    doors.parts.blobs.write(job_files.part_audio(job_id, PART), b"")
    return doors.work(job_id, PART, PART, PART)


@PUT_OFF.produces("no_worker")
def a_model_nobody_holds(doors: Doors) -> str:
    return doors.submit(sound(), model=ELSEWHERE)


@pytest.mark.parametrize("code", FAILURES)
def test_a_failed_job_says_its_code_everywhere(doors: Doors, code: str) -> None:
    job_id = FAILURES[code].act(doors)

    check_failure(doors, job_id, code)


@pytest.mark.service
@pytest.mark.parametrize("code", PUT_OFF)
def test_what_only_puts_a_step_off_is_named_in_the_log(doors: Doors, code: str, tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    only = {"ANANSE_MODELS": f"{MODEL}=tests/{MODEL}"}
    job_id = PUT_OFF[code].act(doors)

    with worker_process(doors.settings, doors.parts.fleet, log, PLAIN, **only):
        wait_until(lambda: is_put_off(log, job_id, code), timeout_s=30)

    job = doors.job(job_id)
    assert (job["status"], job["error"]) == (Status.RUNNING, None)


def is_put_off(log: Path, *words: str) -> bool:
    """Whether a line of a worker's log says so, with these words in it."""
    lines = log.read_text().splitlines()
    return any(all(word in line for word in ("step_put_off", *words)) for line in lines)


def no_room(batch: Sequence[Window]) -> None:
    raise MemoryError


def broken(batch: Sequence[Window]) -> None:
    raise RuntimeError("no kernel image in /usr/lib/libcuda.so")


def an_hour() -> bytes:
    """A few megabytes that keep a decoder busy for a while."""
    return sound(seconds=3600, rate=1_000)


def film() -> bytes:
    """A second of pictures without sound."""
    out = BytesIO()
    with av.open(out, "w", format="mp4") as container:
        picture = container.add_stream("mpeg4", rate=10)
        picture.width = picture.height = 64
        picture.pix_fmt = "yuv420p"
        for _ in range(10):
            container.mux(picture.encode(av.VideoFrame(64, 64, "yuv420p")))
        container.mux(picture.encode(None))
    return out.getvalue()


@contextmanager
def every_decoder_gets(number: signal.Signals) -> Iterator[None]:
    """Signals each of our decoders as soon as it is there, long before it has read its file."""
    done = threading.Event()
    met: set[int] = set()

    def hunt() -> None:
        while not done.wait(_LOOK_S):
            for child in decoders():
                if child.pid not in met:
                    met.add(child.pid)
                    with suppress(psutil.NoSuchProcess):
                        child.send_signal(number)

    hunter = threading.Thread(target=hunt)
    hunter.start()
    try:
        yield
    finally:
        done.set()
        hunter.join()


def decoders() -> Iterator[psutil.Process]:
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):
            if str(DECODER) in child.cmdline():
                yield child
