"""The closed list of error codes, each produced: what the API answers with. How jobs fail is in
`test_every_failure.py`, what only a loaded service says in `test_overload.py`, what only gunicorn says in
`api/test_refusals.py`; a code that is nowhere fails here."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from werkzeug.test import TestResponse

from api.problems import all_errors
from shared import job_files
from shared.api_keys import Scope
from shared.errors import JobError, ServiceError
from shared.job import Status
from shared.ledger import FINISH, PREPARE, Ledger, part_step
from shared.redis_store import RedisStore
from shared.settings import Settings
from tests.api.test_refusals import REFUSED
from tests.support.codes import Doors, Table, below, check_problem, opened, sound
from tests.support.keys import bearer, make_key
from tests.support.worker_context import MODEL
from tests.support.worker_hand import WorkerHand
from tests.test_every_failure import FAILURES, PUT_OFF
from tests.test_overload import ANSWERS as OVERLOAD_ANSWERS
from tests.test_overload import FAILURES as OVERLOAD_FAILURES

pytestmark = pytest.mark.redis

ANSWERS: Table[TestResponse] = Table()
"""Each case gives the answer that names the code."""

LARGEST = 1024
BEYOND_ANY_DISK = 2**60


@pytest.fixture
def doors(code: str, settings: Settings, store: RedisStore) -> Iterator[Doors]:
    with opened(settings, store, ANSWERS[code]) as doors:
        yield doors


def post(doors: Doors, query: str = "", body: bytes = b"sound", **more: Any) -> TestResponse:
    """A recording as the body, options in the query."""
    return doors.client.post(f"/v1/jobs?{query}", **({"data": body, "content_type": "audio/wav"} | more))


def post_declared(doors: Doors, length: int, body: bytes = b"") -> TestResponse:
    """A body that is announced with another length than its own."""
    return post(doors, body=body, environ_overrides={"CONTENT_LENGTH": str(length)})


@ANSWERS.produces("invalid_request")
def a_file_without_a_byte(doors: Doors) -> TestResponse:
    return post_declared(doors, 0)


@ANSWERS.produces("invalid_option")
def a_priority_there_is_not(doors: Doors) -> TestResponse:
    return post(doors, "priority=99")


@ANSWERS.produces("unknown_model")
def a_model_that_is_not_offered(doors: Doors) -> TestResponse:
    return post(doors, "model=large")


@ANSWERS.produces("unsupported_option")
def a_language_no_live_worker_knows(doors: Doors) -> TestResponse:
    WorkerHand(Ledger(doors.store), doors.parts.fleet, doors.parts.blobs, MODEL).come_up(("en",))
    return post(doors, "language=tw")


@ANSWERS.produces("unauthorized")
def a_key_that_was_never_made(doors: Doors) -> TestResponse:
    make_key(doors.keys)
    return post(doors, headers=bearer("ananse_no"))


@ANSWERS.produces("too_many_wrong_keys", wrong_keys_per_min=1)
def a_second_key_that_was_never_made(doors: Doors) -> TestResponse:
    make_key(doors.keys)
    assert post(doors, headers=bearer("ananse_no")).status_code == 401
    return post(doors, headers=bearer("ananse_no"))


@ANSWERS.produces("forbidden")
def a_key_that_may_only_read(doors: Doors) -> TestResponse:
    _, key = make_key(doors.keys, scopes=frozenset({Scope.READ}))
    return post(doors, headers=bearer(key))


@ANSWERS.produces("rate_limited", key_requests_per_min=2)
def one_request_too_many(doors: Doors) -> TestResponse:
    _, key = make_key(doors.keys)
    for _ in range(2):
        assert post(doors, headers=bearer(key)).status_code == 202
    return post(doors, headers=bearer(key))


def refused_the_second(doors: Doors) -> TestResponse:
    """Of two recordings of half a second and 16,044 bytes."""
    _, key = make_key(doors.keys)
    assert post(doors, body=sound(0.5), headers=bearer(key)).status_code == 202
    return post(doors, body=sound(0.5), headers=bearer(key))


@ANSWERS.produces("too_many_jobs", key_jobs=1)
def one_job_too_many(doors: Doors) -> TestResponse:
    return refused_the_second(doors)


@ANSWERS.produces("too_much_audio", key_audio_s=0.9)
def half_a_second_too_much(doors: Doors) -> TestResponse:
    return refused_the_second(doors)


@ANSWERS.produces("too_much_stored", key_stored_bytes=32_000)
def some_bytes_too_much(doors: Doors) -> TestResponse:
    return refused_the_second(doors)


@ANSWERS.produces("not_found")
def a_job_that_never_was(doors: Doors) -> TestResponse:
    return doors.get("job_x")


@ANSWERS.produces("method_not_allowed")
def a_method_the_address_does_not_take(doors: Doors) -> TestResponse:
    return doors.client.put("/v1/jobs")


@ANSWERS.produces("not_acceptable")
def a_transcript_as_a_picture(doors: Doors) -> TestResponse:
    return doors.get(doors.submit(), "/transcript", Accept="image/png")


@ANSWERS.produces("not_ready")
def a_transcript_before_the_end(doors: Doors) -> TestResponse:
    return doors.get(doors.submit(), "/transcript")


@ANSWERS.produces("no_transcript")
def a_transcript_of_a_failed_job(doors: Doors) -> TestResponse:
    return doors.get(doors.work(doors.submit(b"no sound"), PREPARE), "/transcript")


@ANSWERS.produces("job_ended")
def a_failed_job_to_be_canceled(doors: Doors) -> TestResponse:
    job_id = doors.work(doors.submit(b"no sound"), PREPARE)
    return doors.client.post(f"/v1/jobs/{job_id}/cancel")


@ANSWERS.produces("idempotency_mismatch")
def a_key_for_two_recordings(doors: Doors) -> TestResponse:
    key = {"Idempotency-Key": "k1"}
    assert post(doors, headers=key).status_code == 202
    return post(doors, body=b"another sound", headers=key)


@ANSWERS.produces("expired")
def a_transcript_after_its_time(doors: Doors) -> TestResponse:
    job_id = doors.submit()
    assert doors.client.post(f"/v1/jobs/{job_id}/cancel").status_code == 200
    doors.parts.blobs.remove_folder(job_files.folder(job_id))
    doors.parts.jobs.expire(job_id, tombstone_s=60)
    assert doors.job(job_id)["status"] == Status.EXPIRED
    return doors.get(job_id, "/transcript")


@ANSWERS.produces("length_required")
def a_body_without_length_or_end(doors: Doors) -> TestResponse:
    return post(doors, body=b"")


@ANSWERS.produces("too_large", max_upload_bytes=LARGEST)
def a_byte_more_than_is_taken(doors: Doors) -> TestResponse:
    assert post(doors, body=bytes(LARGEST)).status_code == 202
    return post(doors, body=bytes(LARGEST + 1))


@ANSWERS.produces("unsupported_media_type")
def a_form_that_can_hold_no_file(doors: Doors) -> TestResponse:
    return post(doors, content_type="application/x-www-form-urlencoded")


@ANSWERS.produces("unsupported_encoding")
def a_body_that_would_have_to_be_unpacked(doors: Doors) -> TestResponse:
    return post(doors, headers={"Content-Encoding": "gzip"})


@ANSWERS.produces("range_not_satisfiable")
def a_range_beyond_the_end(doors: Doors) -> TestResponse:
    return doors.get(doors.submit(), "/audio", Range="bytes=99-")


@ANSWERS.produces("incomplete_upload")
def a_client_that_goes_away(doors: Doors) -> TestResponse:
    return post_declared(doors, 99, b"sound")


@ANSWERS.produces("url_ingest_unavailable", fetch_slots=0)
def an_address_instead_of_a_recording(doors: Doors) -> TestResponse:
    return doors.client.post("/v1/jobs", json={"audio_url": "https://example.org/a.mp3"})


@ANSWERS.produces("internal")
def a_transcript_nobody_can_read(doors: Doors) -> TestResponse:
    """As a mistake of ours would leave it."""
    job_id = doors.work(doors.submit(sound()), PREPARE, part_step(0), FINISH)
    assert doors.job(job_id)["status"] == Status.COMPLETED
    doors.parts.blobs.write(job_files.transcript(job_id), b"{")
    return doors.get(job_id, "/transcript")


@ANSWERS.produces("unavailable", api_threads=4)
def more_followers_than_threads(doors: Doors) -> TestResponse:
    job_id = doors.submit()
    with ExitStack() as followers:
        for _ in range(doors.settings.api_threads):
            answer = doors.get(job_id, "/events")
            followers.enter_context(answer)
            if answer.status_code != 200:
                break
        return answer


@ANSWERS.produces("store_unavailable", redis_url="unix:///nowhere/redis.sock")
def a_job_store_that_is_away(doors: Doors) -> TestResponse:
    return post(doors)


@ANSWERS.produces("rebuilding")
def a_job_store_that_forgot(doors: Doors) -> TestResponse:
    job_id = doors.submit()
    doors.store.client.flushall()
    return doors.get(job_id)


@ANSWERS.produces("storage_full", max_upload_bytes=BEYOND_ANY_DISK)
def a_recording_there_is_no_room_for(doors: Doors) -> TestResponse:
    return post_declared(doors, BEYOND_ANY_DISK)


@ANSWERS.produces("storage_unavailable")
def a_file_store_that_takes_nothing(doors: Doors) -> TestResponse:
    shutil.rmtree(doors.parts.blobs.incoming)
    return post(doors)


@pytest.mark.parametrize("code", ANSWERS)
def test_an_answer_is_a_problem_with_its_code(doors: Doors, code: str) -> None:
    answer = ANSWERS[code].act(doors)

    check_problem(answer, code)


def test_every_code_of_the_tree_has_its_case() -> None:
    kinds: list[type[ServiceError]] = [ServiceError, *all_errors()]

    assert FAILURES.keys() | OVERLOAD_FAILURES.keys() == {
        kind.code for kind in kinds if issubclass(kind, JobError)
    }
    assert ANSWERS.keys() | OVERLOAD_ANSWERS.keys() | set(PUT_OFF) | REFUSED.keys() == {
        kind.code for kind in kinds if not issubclass(kind, JobError)
    }


def test_nobody_makes_up_a_code_outside_of_the_tree() -> None:
    """Modules may have errors of their own below ours, but with codes of the list."""
    listed = {ServiceError.code, *(kind.code for kind in all_errors())}

    assert {kind.code for kind in below(ServiceError)} <= listed
