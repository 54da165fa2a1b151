"""What both clients do when things go wrong, with the network scripted: flows know no socket."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from ananse_client import calls, errors, events, looking
from ananse_client.errors import BY_CODE, Unreachable
from ananse_client.flows import Flow, NotConnected, Patience, Pause, Reply, Send, Steps, Tell, call
from api.problems import all_errors

STILL = Patience(retries=3, first_s=1.0, chance=lambda: 0.0, clock=lambda: 0.0)
JOB = {"id": "job_1", "status": "running", "created_at": "2026-01-01T00:00:00Z"}


def reply(status: int = 200, body: object = None, **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, named, json.dumps(body))


def problem(status: int, code: str, **headers: str) -> Reply:
    return reply(status, {"code": code, "detail": "why", "request_id": "req_1"}, **headers)


def job(**fields: object) -> Reply:
    return reply(200, JOB | fields)


class Played:
    """A flow that was answered from a script: what it sent, paused and told, and what came of it."""

    def __init__(self, flow: Flow[Any], answers: Sequence[Any]) -> None:
        self.sent: list[Send] = []
        self.paused: list[float] = []
        self.told: list[Any] = []
        left = list(answers)
        steps = Steps(flow)
        while (effect := steps.effect) is not None:
            if isinstance(effect, Tell):
                self.told.append(effect.value)
                steps.answer(None)
            elif isinstance(effect, Pause):
                self.paused.append(effect.seconds)
                steps.answer(None)
            else:
                if isinstance(effect, Send):
                    self.sent.append(effect)
                answer = left.pop(0)
                if isinstance(answer, Exception):
                    steps.fail(answer)
                else:
                    steps.answer(answer)
        assert left == []
        self.value = steps.value


GET = Send("GET", "/x")
ONCE = Send("POST", "/x", is_safe=False)


def test_pauses_grow_and_a_longer_wish_of_the_server_is_honoured() -> None:
    answers = [
        problem(503, "unavailable"),
        problem(503, "backlog_full", retry_after="9"),
        Unreachable(),
        reply(),
    ]

    assert Played(call(STILL, GET), answers).paused == [0.5, 9.0, 2.0]


def test_retries_are_bounded() -> None:
    with pytest.raises(errors.Rebuilding):
        Played(call(STILL, GET), [problem(503, "rebuilding")] * 4)


def test_nobody_waits_for_an_hour() -> None:
    with pytest.raises(errors.BacklogFull) as caught:
        Played(call(STILL, GET), [problem(503, "backlog_full", retry_after="3600")])

    assert caught.value.problem.retry_after_s == 3600.0


@pytest.mark.parametrize("status", [400, 401, 404, 409, 422, 501])
def test_what_will_not_change_is_not_sent_again(status: int) -> None:
    with pytest.raises(errors.ServiceError):
        Played(call(STILL, GET), [problem(status, "invalid_option")])


def test_a_wrong_key_is_not_tried_until_it_fits() -> None:
    with pytest.raises(errors.ServiceError, match="why"):
        Played(call(STILL, GET), [problem(429, "too_many_wrong_keys", retry_after="60")])


def test_what_may_have_been_done_is_not_done_twice() -> None:
    with pytest.raises(Unreachable):
        Played(call(STILL, ONCE), [Unreachable("broke")])
    with pytest.raises(errors.Internal):
        Played(call(STILL, ONCE), [problem(500, "internal")])

    never_out = Played(call(STILL, ONCE), [NotConnected("refused"), reply()])
    put_off = Played(call(STILL, ONCE), [problem(503, "unavailable", retry_after="1"), reply()])

    assert len(never_out.sent) == len(put_off.sent) == 2


def test_a_submission_has_one_key_however_often_it_is_sent() -> None:
    new = calls.Submission("https://example.org/a.mp3", {"language": "en", "prompt": None})

    played = Played(calls.submit(STILL, new), [Unreachable(), problem(503, "unavailable"), job()])

    keys = {sent.headers["Idempotency-Key"] for sent in played.sent}
    assert len(played.sent) == 3
    assert len(keys) == 1
    assert played.sent[0].json == {"audio_url": "https://example.org/a.mp3", "language": "en"}


def test_two_submissions_have_two_keys() -> None:
    sent = [
        Played(calls.submit(STILL, calls.Submission("http://h/a", {})), [job()]).sent[0] for _ in range(2)
    ]

    assert sent[0].headers["Idempotency-Key"] != sent[1].headers["Idempotency-Key"]


def test_a_server_that_does_not_let_wait_is_not_asked_at_once_again() -> None:
    answers = [job(), reply(200, JOB, retry_after="4"), job(status="completed")]

    assert Played(calls.wait(STILL, "job_1", None), answers).paused == [4.0]


def lines(*blocks: str) -> list[Any]:
    return [line for block in blocks for line in (*block.split("\n"), "")]


STREAM = Reply(200, {"content-type": "text/event-stream"})
RUNNING = 'id: 1-0\nevent: state\ndata: {"status":"running"}'
PROGRESS = 'id: 2-0\nevent: progress\ndata: {"done_s":3.0,"total_s":6.0}'
COMPLETED = 'id: 3-0\nevent: state\ndata: {"status":"completed"}'


def test_a_stream_that_breaks_is_taken_up_after_the_last_event() -> None:
    answers = [
        STREAM,
        *lines("retry: 3000", RUNNING, ": ping", PROGRESS),
        Unreachable(),
        STREAM,
        *lines(COMPLETED),
    ]

    played = Played(events.follow(STILL, "job_1"), answers)

    assert "Last-Event-ID" not in played.sent[0].headers
    assert played.sent[1].headers["Last-Event-ID"] == "2-0"
    assert [event.id for event in played.told] == ["1-0", "2-0", "3-0"]


def test_half_an_event_at_the_break_is_not_told() -> None:
    answers = [STREAM, *lines(RUNNING), "id: 2-0", "event: progress", None, STREAM, *lines(COMPLETED)]

    assert [event.id for event in Played(events.follow(STILL, "job_1"), answers).told] == ["1-0", "3-0"]


@pytest.mark.parametrize("no_stream", [Unreachable(), reply(503), reply(200, content_type="text/html")])
def test_where_there_is_no_stream_the_job_is_asked_for(no_stream: object) -> None:
    progress = {"done_s": 1.0, "total_s": 2.0}
    answers = [no_stream, job(), job(), job(progress=progress), job(status="completed", progress=progress)]

    told = Played(events.follow(STILL, "job_1"), answers).told

    assert [(event.kind, event.status, event.done_s) for event in told] == [
        ("state", "running", None),
        ("progress", None, 1.0),
        ("state", "completed", None),
    ]


def test_following_what_is_not_there_raises() -> None:
    with pytest.raises(errors.NotFound):
        Played(events.follow(STILL, "job_1"), [problem(404, "not_found")])


def test_every_code_of_the_service_has_a_class() -> None:
    assert {kind.code for kind in all_errors()} - BY_CODE.keys() == set()


@pytest.mark.parametrize(
    ("status", "kind"), [(418, errors.RequestError), (429, errors.Unavailable), (599, errors.Unavailable)]
)
def test_unknown_codes_are_of_their_kind(status: int, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        Played(call(Patience(retries=0), GET), [problem(status, "of_tomorrow")])


@pytest.mark.parametrize(
    ("status", "kind"), [(413, errors.TooLarge), (404, errors.NotFound), (502, errors.Unavailable)]
)
def test_a_proxy_that_answers_for_the_service_is_understood(status: int, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="not in the service's own words"):
        Played(call(Patience(retries=0), GET), [Reply(status, {}, "<html>")])


def test_what_a_newer_service_adds_does_no_harm() -> None:
    found = Played(looking.get(STILL, "job_1"), [job(mood="fine", media={"name": "a", "smell": 1})]).value

    assert (found.media.name, found.raw["mood"]) == ("a", "fine")
