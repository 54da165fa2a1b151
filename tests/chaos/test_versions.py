"""Workers and records of different versions side by side: row 27 of the failure table."""

import json
from pathlib import Path

import pytest

from shared.job import Status
from shared.redis_store import RedisStore
from shared.settings import Settings
from tests.chaos.crew import assert_all_right, crew, has_ended, impatient
from tests.chaos.sounds import sounds
from tests.support.service import Service
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.redis, pytest.mark.service, pytest.mark.slow]

SEED = 2028
LATER = "1000"
"""A schema that no worker of today knows."""


@pytest.fixture
def service(settings: Settings, store: RedisStore) -> Service:
    return Service(impatient(settings), store)


def record(service: Service, job_id: str, name: str) -> str:
    return str(service.store.client.hget(service.store.key("job", job_id), name) or "")


def write(service: Service, job_id: str, **fields: str) -> None:
    service.store.client.hset(service.store.key("job", job_id), mapping=fields)


def test_a_record_of_a_later_schema_is_left_to_those_who_know_it(service: Service, tmp_path: Path) -> None:
    """It is neither begun nor failed, the worker goes on, and the job is done once somebody can."""
    recordings = sounds(tmp_path, [3, 4], SEED)
    with crew(service, tmp_path) as workers:
        given = {workers.submit(one): one for one in recordings}
        newer, other = given
        options = record(service, newer, "options")
        schema = record(service, newer, "schema") or "1"
        write(service, newer, schema=LATER, options='{"asked": "in other words"}')

        (worker,) = workers.hire()
        jobs = workers.see_through([other])
        wait_until(lambda: any(row["job_id"] == newer for row in workers.log("step_not_claimed")), 30)
        assert record(service, newer, "status") == Status.QUEUED
        assert int(record(service, newer, "attempt")) == 0
        assert not has_ended(worker)

        write(service, newer, schema=schema, options=options)
        jobs |= workers.see_through([newer])
    assert_all_right(service, given, jobs)
    assert {job.attempt for job in jobs.values()} == {1}


def test_a_record_with_more_in_it_than_is_known_is_worked_on(service: Service, tmp_path: Path) -> None:
    """What a later version may add without a new schema: fields that may be left out of account."""
    (recording,) = sounds(tmp_path, [3], SEED)
    with crew(service, tmp_path) as workers:
        job_id = workers.submit(recording)
        for name in ("options", "media"):
            known = json.loads(record(service, job_id, name))
            write(service, job_id, **{name: json.dumps(known | {"of_later": {"depth": [1]}})})
        write(service, job_id, of_later="1")
        workers.hire()
        jobs = workers.see_through([job_id])
    assert_all_right(service, {job_id: recording}, jobs)


def test_a_record_from_before_schemas_had_numbers_is_worked_on(service: Service, tmp_path: Path) -> None:
    (recording,) = sounds(tmp_path, [3], SEED)
    with crew(service, tmp_path) as workers:
        job_id = workers.submit(recording)
        service.store.client.hdel(service.store.key("job", job_id), "schema")
        workers.hire()
        jobs = workers.see_through([job_id])
    assert_all_right(service, {job_id: recording}, jobs)
