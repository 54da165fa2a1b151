"""A webhook on its way to a receiver that is sometimes away."""

import ssl
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from standardwebhooks import Webhook

from shared.settings import Settings
from tests.worker.receiver import http, receiver
from worker.delivery import JITTER, Outcome, Sender, next_delay_s, parse_retry_after, post
from worker.http_guard import GuardedSender

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = b'{"type": "job.completed"}'
SCHEDULE = (5.0, 300.0, 1800.0)
NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)


class RecordingSender:
    """Keeps what it was to send."""

    def __init__(self) -> None:
        self.url = ""
        self.headers: Mapping[str, str] = {}
        self.body = b""

    def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
        self.url, self.headers, self.body = url, headers, body
        return Outcome(200, 0.1)


def answered(status: int | None, retry_after_s: float | None = None, error: str | None = None) -> Outcome:
    return Outcome(status, 0.1, error, retry_after_s=retry_after_s)


def send(
    sender: Sender, url: str, now: datetime = NOW, auth_header: tuple[str, str] | None = None
) -> Outcome:
    return post(
        sender, webhook_id="evt_1", body=BODY, url=url, secrets=[SECRET], auth_header=auth_header, now=now
    )


def test_a_receiver_that_fails_twice_gets_the_same_body_and_id_and_a_fresh_signature() -> None:
    allow = (ip_network("127.0.0.0/8"),)
    with receiver(http(500, b"oops"), http(503, retry_after="7"), http(200, b"ok")) as listening:
        sender = GuardedSender(5.0, allow, ssl_context=ssl.create_default_context())
        outcomes, delays, now = [], [], datetime.now(UTC)
        for attempt in range(1, 6):
            outcomes.append(send(sender, listening.url(), now + timedelta(seconds=attempt)))
            delays.append(next_delay_s(attempt, SCHEDULE, outcomes[-1], lambda: 0.5))
            if delays[-1] is None:
                break

        assert [(o.status, o.answer, o.delivered) for o in outcomes] == [
            (500, "oops", False),
            (503, "", False),
            (200, "ok", True),
        ]
        assert delays == [5.0, 300.0, None]
        heads = [dict(_headers(request)) for request in listening.requests]
        bodies = [request.partition(b"\r\n\r\n")[2] for request in listening.requests]
        assert bodies == [BODY] * 3
        assert {head["webhook-id"] for head in heads} == {"evt_1"}
        assert len({head["webhook-signature"] for head in heads}) == 3
        for head, body in zip(heads, bodies, strict=True):
            assert Webhook(SECRET).verify(body, head) == {"type": "job.completed"}
            assert head["content-type"] == "application/json"


def _headers(request: bytes) -> list[tuple[str, str]]:
    lines = request.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
    return [(name.lower(), value) for name, _, value in (line.partition(": ") for line in lines)]


def test_the_answer_is_kept_up_to_a_kilobyte_whatever_it_holds() -> None:
    with receiver(http(200, b"\xff\x00" + b"a" * 5000)) as listening:
        sender = GuardedSender(5.0, (ip_network("127.0.0.0/8"),), ssl_context=ssl.create_default_context())
        outcome = send(sender, listening.url())

    assert outcome.delivered
    assert outcome.answer == "\ufffd\x00" + "a" * 1022


def test_an_address_inside_is_an_outcome_and_not_an_exception() -> None:
    sender = GuardedSender(5.0, ssl_context=ssl.create_default_context())

    outcome = send(sender, "http://169.254.169.254/latest/meta-data/")

    assert (outcome.status, outcome.error, outcome.delivered) == (None, "blocked_address", False)
    assert next_delay_s(1, SCHEDULE, outcome, lambda: 0.5) == 5.0


def test_the_clients_own_header_is_sent() -> None:
    sender = RecordingSender()

    send(sender, "https://example.com/hook", auth_header=("X-Api-Key", "opensesame"))

    assert sender.headers["X-Api-Key"] == "opensesame"
    assert (sender.url, sender.body) == ("https://example.com/hook", BODY)


@pytest.mark.parametrize(
    "name", ["Host", "content-length", "Transfer-Encoding", "Webhook-Signature", "WEBHOOK-ID", "Content-Type"]
)
def test_the_clients_own_header_takes_no_place_of_ours(name: str) -> None:
    sender = RecordingSender()

    send(sender, "https://example.com/hook", auth_header=(name, "mine"))

    assert "mine" not in sender.headers.values()


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_only_2xx_is_delivered(status: int) -> None:
    assert answered(status).delivered
    assert next_delay_s(1, SCHEDULE, answered(status), lambda: 0.5) is None


@pytest.mark.parametrize("status", [None, 100, 199, 300, 302, 304, 400, 401, 404, 410, 429, 500, 503])
def test_anything_else_is_not(status: int | None) -> None:
    assert not answered(status).delivered


def test_gone_ends_it() -> None:
    assert answered(410).gone
    assert next_delay_s(1, SCHEDULE, answered(410, retry_after_s=9), lambda: 0.5) is None


def test_the_schedule_is_followed_and_then_given_up() -> None:
    failed = answered(500)

    assert [next_delay_s(attempt, SCHEDULE, failed, lambda: 0.5) for attempt in range(1, 6)] == [
        *SCHEDULE,
        None,
        None,
    ]
    assert next_delay_s(1, (), failed, lambda: 0.5) is None


def test_the_usual_schedule_is_the_standard_s() -> None:
    """At once, and then so many seconds after each try."""
    usual = Settings().webhook_retry_s
    pauses = [next_delay_s(attempt, usual, answered(500), lambda: 0.5) for attempt in range(1, 9)]

    assert pauses == [5, 300, 1800, 7200, 18_000, 36_000, 36_000, None]


@pytest.mark.parametrize(("chance", "pause"), [(0.0, 4.0), (0.5, 5.0), (1.0, 6.0)])
def test_pauses_vary_by_a_fifth(chance: float, pause: float) -> None:
    assert next_delay_s(1, SCHEDULE, answered(None, error="connect"), lambda: chance) == pytest.approx(pause)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_wish_for_a_longer_pause_is_heard(status: int) -> None:
    assert next_delay_s(1, SCHEDULE, answered(status, 60.0), lambda: 0.0) == 60.0


@pytest.mark.parametrize(
    ("status", "asked", "pause"),
    [(503, 1.0, 5.0), (503, 10_000_000.0, 1980.0), (500, 60.0, 5.0), (404, 60.0, 5.0), (503, None, 5.0)],
)
def test_a_wish_has_its_bounds(status: int, asked: float | None, pause: float) -> None:
    assert next_delay_s(1, SCHEDULE, answered(status, asked), lambda: 0.5) == pytest.approx(pause)


@settings(deadline=None)
@given(
    st.integers(1, 3),
    st.sampled_from([None, 302, 404, 429, 500, 503]),
    st.none() | st.floats(0, 1e9),
    st.floats(0, 1),
)
def test_a_pause_is_never_shorter_than_four_fifths_nor_longer_than_the_longest(
    attempt: int, status: int | None, asked: float | None, chance: float
) -> None:
    pause = next_delay_s(attempt, SCHEDULE, answered(status, asked), lambda: chance)

    assert pause is not None
    assert SCHEDULE[attempt - 1] * (1 - JITTER) <= pause <= max(SCHEDULE) * (1 + JITTER) + 1e-9


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        (" 7 ", 7.0),
        ("0", 0.0),
        ("Mon, 04 May 2026 03:03:01 GMT", 60.0),
        ("Mon, 04 May 2020 03:03:01 GMT", 0.0),
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("٣", None),
        ("9" * 5000, None),
        ("Mon, 99 May 2026 99:99:99 GMT", None),
        ("Mon, 04 May 2026 03:03:01 -0000", None),
    ],
)
def test_retry_after_is_read_in_both_its_forms(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, NOW) == seconds


@settings(deadline=None)
@given(st.text(st.characters(max_codepoint=0x2FF), max_size=40))
def test_no_retry_after_breaks_the_reader(value: str) -> None:
    assert (parse_retry_after(value, NOW) or 0.0) >= 0.0
