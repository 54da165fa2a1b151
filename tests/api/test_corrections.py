"""A transcript with a reader's words in it: times, words, formats, and what is refused."""

import json
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st

from api.corrections import corrected, unknown
from shared.transcript import Segment, Transcript, WindowResult, Word
from tests.api.conftest import Submit
from tests.support.worker_hand import WorkerHand, window


def segment(number: int, *words: str, flags: tuple[str, ...] = ()) -> Segment:
    """A second for each word."""
    timed = tuple(Word(number + at, number + at + 1.0, word, 0.4) for at, word in enumerate(words))
    end = number + float(len(words))
    return Segment(number, number, end, " ".join(words), -0.5, 1.0, 0.0, 0.0, timed, flags)


def transcript(*segments: Segment) -> Transcript:
    result = WindowResult(0, 0.0, 9.0, segments)
    return Transcript.of([result], 9.0)


def told(found: Transcript, number: int = 0) -> list[tuple[str, float, float]]:
    return [(word.text, word.start, word.end) for word in found.segments[number].words or ()]


def test_words_that_stay_keep_their_times_and_new_ones_share_those_they_stand_for() -> None:
    made = transcript(segment(0, "all", "storys", "are", "mine", flags=("low_confidence", "repetition")))

    found = corrected(made, {0: "all the tales are mine"})

    assert told(found) == [
        *(("all", 0, 1), ("the", 1, 1.375), ("tales", 1.375, 2), ("are", 2, 3), ("mine", 3, 4)),
    ]
    assert [word.probability for word in found.segments[0].words or ()] == [0.4, 1.0, 1.0, 0.4, 0.4]
    assert found.segments[0].flags == ("repetition", "corrected")
    assert found.text == "all the tales are mine"
    assert made.text == "all storys are mine"


@pytest.mark.parametrize(
    ("text", "times"),
    [
        ("all are", [("all", 0, 1), ("are", 1, 2)]),
        ("oh all are", [("oh", 0, 0), ("all", 0, 1), ("are", 1, 2)]),
        ("all", [("all", 0, 1)]),
        ("", []),
    ],
)
def test_words_that_come_and_go(text: str, times: list[tuple[str, float, float]]) -> None:
    assert told(corrected(transcript(segment(0, "all", "are")), {0: text})) == times


def test_the_same_text_is_no_correction() -> None:
    made = transcript(segment(0, "all", "are"), segment(1, "mine"))

    assert corrected(made, {0: " all are "}) == made
    assert unknown(made, {1: "x", 7: "y"}) == [7]


@given(
    st.lists(st.sampled_from(["a", "bb", "c", "dd"]), min_size=1, max_size=8),
    st.lists(st.sampled_from(["a", "bb", "c", "eee"]), max_size=8),
)
def test_words_are_the_text_in_the_order_of_time(old: list[str], new: list[str]) -> None:
    (found,) = corrected(transcript(segment(0, *old)), {0: " ".join(new)}).segments

    assert found.words is not None
    assert [word.text for word in found.words] == new
    times = [time for word in found.words for time in (word.start, word.end)]
    assert times == sorted(times)
    assert all(found.start <= time <= found.end for time in times)


@pytest.fixture
def link(submit: Submit, worker: WorkerHand) -> str:
    job = submit()
    windows = (window(0, 0.0, 1.5, "Good morning."), window(1, 2.0, 4.0, "All storys are mine."))
    worker.complete(job["id"], *windows)
    found: str = job["links"]["transcript"]
    return found


def body(*corrections: tuple[int, str]) -> dict[str, Any]:
    return {"corrections": [{"id": number, "text": text} for number, text in corrections]}


@pytest.mark.redis
def test_every_format_is_written_with_it_and_nothing_is_kept(client: FlaskClient, link: str) -> None:
    sent = body((0, ""), (1, "All stories are mine."))

    def written(name: str, more: str = "") -> str:
        answer = client.post(f"{link}?format={name}{more}", json=sent)
        assert answer.status_code == 200, answer.text
        return answer.text

    assert written("text") == "All stories are mine.\n"
    assert written("srt") == "1\n00:00:02,000 --> 00:00:04,000\nAll stories are mine.\n"
    assert "All stories\nare mine." in written("srt", "&max_line_chars=12")
    assert written("tsv") == "start\tend\ttext\n2000\t4000\tAll stories are mine.\n"
    assert json.loads(written("json"))["segments"][1]["flags"] == ["corrected"]
    assert client.get(f"{link}?format=text").text == "Good morning.\nAll storys are mine.\n"
    assert client.post(f"{link}?format=vtt", json=body()).data == client.get(f"{link}?format=vtt").data


@pytest.mark.redis
@pytest.mark.parametrize(
    ("sent", "status", "code", "said"),
    [
        (json.dumps(body((7, "x"))), 422, "invalid_option", "there is no segment 7"),
        (json.dumps(body((0, "x"), (0, "y"))), 422, "invalid_option", "corrected twice"),
        (json.dumps(body((0, "a\u0000b"))), 422, "invalid_option", "control characters"),
        (json.dumps(body((0, "x" * 10_001))), 422, "invalid_option", "10000"),
        ('{"corrections": [{"id": "0", "text": "x"}]}', 422, "invalid_option", "integer"),
        ('{"corrections": {}, "more": 1}', 422, "invalid_option", "not known"),
        ("[]", 422, "invalid_option", ""),
        ("{", 400, "invalid_request", "not JSON"),
        ("x" * 300_000, 413, "too_large", "262144"),
    ],
)
def test_what_is_refused(
    client: FlaskClient, link: str, sent: str, status: int, code: str, said: str
) -> None:
    answer = client.post(link, data=sent, content_type="application/json")

    assert (answer.status_code, answer.json["code"]) == (status, code)
    assert said in answer.json["detail"]


@pytest.mark.redis
def test_there_must_be_a_transcript(client: FlaskClient, submit: Submit) -> None:
    answer = client.post(submit()["links"]["transcript"], json=body((0, "x")))

    assert (answer.status_code, answer.json["code"]) == (409, "not_ready")
