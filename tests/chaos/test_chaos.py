"""Nothing accepted is lost, whatever is killed; and the comparison that says so finds what is to be found."""

from pathlib import Path

import pytest

from tests.chaos.campaign import FORGETFUL, KILLED, Plan, run
from tests.chaos.cluster import PREPARE_SLOTS
from tests.chaos.promises import Book, Verdict, judge
from tests.chaos.scene import say

RIGHT = {0: "good morning"}


def record(job_id: str, key: str, status: str = "completed", *, hooked: bool = False) -> dict[str, object]:
    webhook = {"status": "delivered"} if hooked else None
    return {"id": job_id, "status": status, "options": {"tag": key}, "webhook": webhook}


@pytest.fixture
def book() -> Book:
    """One job, promised, seen to complete, its webhook received."""
    made = Book()
    made.answered(made.ask("key", 0), "job_1")
    made.saw("job_1", "completed")
    made.called("msg_job_1_deliver-0", b"body")
    return made


def verdict(book: Book, *records: dict[str, object], text: str = "good morning") -> Verdict:
    return judge(book, records, {"job_1": text}, RIGHT)


def test_a_kept_promise_is_kept(book: Book) -> None:
    assert verdict(book, record("job_1", "key", hooked=True)).is_kept


def test_a_promised_job_that_is_unknown_is_lost(book: Book) -> None:
    assert verdict(book).lost == ("job_1",)


def test_a_job_nobody_asked_for_is_unexpected(book: Book) -> None:
    assert verdict(book, record("job_1", "key"), record("job_2", "other")).unexpected == ("job_2",)


def test_two_jobs_of_one_key_are_a_duplicate(book: Book) -> None:
    assert verdict(book, record("job_1", "key"), record("job_2", "key")).duplicated == ("key",)


def test_a_key_that_was_answered_with_two_ids_is_a_duplicate(book: Book) -> None:
    book.answered(book.ask("key", 0), "job_2")
    assert "key" in verdict(book, record("job_1", "key")).duplicated


def test_a_webhook_with_two_bodies_is_a_duplicate(book: Book) -> None:
    book.called("msg_job_1_deliver-0", b"another body")
    assert verdict(book, record("job_1", "key")).duplicated == ("msg_job_1_deliver-0",)


def test_a_job_whose_answer_never_came_is_recovered_and_no_broken_promise(book: Book) -> None:
    book.ask("unheard", 0)
    told = verdict(book, record("job_1", "key"), record("job_2", "unheard"))
    assert told.recovered == ("job_2",)
    assert told.is_kept


def test_a_job_that_never_ends_is_stuck(book: Book) -> None:
    assert verdict(book, record("job_1", "key", "running")).stuck == ("job_1",)


def test_another_text_is_wrong(book: Book) -> None:
    assert verdict(book, record("job_1", "key"), text="good evening").wrong == ("job_1",)


def test_an_end_that_becomes_another_is_changed(book: Book) -> None:
    assert verdict(book, record("job_1", "key", "canceled")).changed == ("job_1",)
    book.saw("job_1", "failed")
    assert verdict(book, record("job_1", "key")).changed == ("job_1",)


def test_an_innocent_that_failed_or_was_canceled_by_nobody_is_a_failure(book: Book) -> None:
    assert verdict(book, record("job_1", "key", "failed")).failed == ("job_1",)
    assert verdict(book, record("job_1", "key", "canceled")).failed == ("job_1",)
    book.promises["key"].was_canceled = True
    assert verdict(book, record("job_1", "key", "canceled")).failed == ()


def test_a_receiver_that_never_heard_is_uncalled(book: Book) -> None:
    book.hooks.clear()
    assert verdict(book, record("job_1", "key", hooked=True)).uncalled == ("job_1",)


@pytest.mark.redis
@pytest.mark.service
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_nothing_is_lost_whatever_is_killed(tmp_path: Path) -> None:
    """The small size of `make chaos`."""
    report = run(Plan(jobs=300, every_s=2.0, seed=20), tmp_path, say)
    say(report.markdown())

    assert report.verdict.is_kept, report.verdict
    assert set(report.faults) == set(KILLED)
    # However slow the machine: a kill costs no more than what one worker had in hand.
    assert report.executions_again <= PREPARE_SLOTS * report.faults.total()


@pytest.mark.redis
@pytest.mark.service
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_nothing_is_lost_when_redis_loses_everything(tmp_path: Path) -> None:
    """Emptied and set back, again and again, under load; each time the service says that it is not ready."""
    report = run(Plan(jobs=150, every_s=4.0, seed=5, shares=FORGETFUL), tmp_path, say)
    say(report.markdown())

    assert report.verdict.is_kept, report.verdict
    assert report.faults["emptied"]
    assert report.faults["old"]
    assert report.faults["red"] > 0
