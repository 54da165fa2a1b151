"""What a client makes of a server's answers, from a real one that says what it is told to."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from benchmarks.bento.clients import (
    Answer,
    Ask,
    Round,
    ask_for_all,
    submit_and_wait,
    submit_and_wait_patiently,
    transcribe,
    transcribe_patiently,
)
from benchmarks.bento.recordings import Recording

Say = tuple[int, dict[str, object] | str]
AT_ONCE = partial(transcribe_patiently, pause_s=0.0)
SUBMIT_AT_ONCE = partial(submit_and_wait_patiently, pause_s=0.0)
CUT = (0, "")
DONE = (200, {"transcript": "Good morning."})
TAKEN = (202, {"id": "job_1"})
NOT_READY = (409, {"code": "not_ready"})


@dataclass
class ScriptedServer:
    """Says one thing after another; keeps what it was asked."""

    url: str
    lines: list[Say]
    asked: list[tuple[str, str | None]] = field(default_factory=list)


@pytest.fixture
def serve() -> Iterator[Callable[..., ScriptedServer]]:
    servers: list[ThreadingHTTPServer] = []

    def start(*lines: Say) -> ScriptedServer:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.do_GET()

            def do_GET(self) -> None:
                script.asked.append((f"{self.command} {self.path}", self.headers["Idempotency-Key"]))
                status, content = script.lines.pop(0)
                if not status:
                    self.close_connection = True
                    return
                body = (content if isinstance(content, str) else json.dumps(content)).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        script = ScriptedServer(f"http://127.0.0.1:{server.server_port}", list(lines))
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        servers.append(server)
        return script

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def ask(server: ScriptedServer, how: Ask) -> Answer:
    (answer,) = asked_for(server, how, count=1).answers
    return answer


def asked_for(server: ScriptedServer, how: Ask, count: int) -> Round:
    sent = [Recording(f"talk-{number}.wav", 1.0, "Good morning.", b"RIFF") for number in range(count)]
    return asyncio.run(ask_for_all(server.url, sent, 2, how))


@pytest.mark.parametrize(
    ("line", "failure"),
    [
        ((429, "Too many requests"), "429"),
        ((504, {"error": "late"}), "504"),
        ((200, {"error": "Transcription failed", "message": ""}), "200 with an error"),
        (CUT, "connection cut"),
    ],
)
def test_the_first_answer_is_taken(serve: Callable[..., ScriptedServer], line: Say, failure: str) -> None:
    answer = ask(serve(line), transcribe)

    assert (answer.reply.text, answer.reply.failure, answer.refused) == (None, failure, ())


def test_a_transcript_is_one(serve: Callable[..., ScriptedServer]) -> None:
    assert ask(serve(DONE), transcribe).reply.text == "Good morning."


def test_the_patient_send_again_until_there_is_a_transcript(serve: Callable[..., ScriptedServer]) -> None:
    answer = ask(serve((429, ""), CUT, (503, ""), DONE), AT_ONCE)

    assert answer.reply.text == "Good morning."
    assert answer.refused == ("429", "connection cut", "503")


def test_the_patient_do_not_repeat_what_cannot_be_helped(serve: Callable[..., ScriptedServer]) -> None:
    server = serve((200, {"error": "Transcription failed"}))

    assert ask(server, AT_ONCE).reply.failure == "200 with an error"
    assert len(server.asked) == 1


def test_a_wait_that_is_over_goes_on_with_the_job(serve: Callable[..., ScriptedServer]) -> None:
    server = serve(TAKEN, NOT_READY, (200, "Good morning."))

    assert ask(server, transcribe).reply.text == "Good morning."
    assert [request for request, _ in server.asked][1:] == [
        "GET /v1/jobs/job_1/transcript?format=text&wait=30"
    ] * 2


@pytest.mark.parametrize("line", [(422, {"code": "no_audio"}), (409, {"code": "no_transcript"})])
def test_a_job_without_a_transcript_has_failed(serve: Callable[..., ScriptedServer], line: Say) -> None:
    assert ask(serve(TAKEN, line), submit_and_wait).reply.failure == str(line[0])


def test_a_submitter_without_patience_gives_up(serve: Callable[..., ScriptedServer]) -> None:
    assert ask(serve(CUT), submit_and_wait).reply.failure == "connection cut"
    assert ask(serve(TAKEN, CUT), submit_and_wait).reply.failure == "connection cut"


def test_a_patient_submitter_keeps_its_key_and_its_job(serve: Callable[..., ScriptedServer]) -> None:
    server = serve(CUT, (503, ""), TAKEN, CUT, NOT_READY, (200, "Good morning."))

    answer = ask(server, SUBMIT_AT_ONCE)

    assert answer.reply.text == "Good morning."
    assert answer.refused == ("connection cut", "503", "connection cut")
    assert [request for request, _ in server.asked].count("POST /v1/jobs") == 3
    assert len({key for request, key in server.asked if request == "POST /v1/jobs"}) == 1


def test_each_recording_is_sent_once(serve: Callable[..., ScriptedServer]) -> None:
    server = serve(*[DONE] * 5)

    answers = asked_for(server, transcribe, count=5).answers

    assert sorted(answer.recording.name for answer in answers) == [f"talk-{n}.wav" for n in range(5)]
    assert len(server.asked) == 5


def test_transcripts_are_counted_as_they_come(serve: Callable[..., ScriptedServer]) -> None:
    counts: list[int] = []
    sent = [Recording(f"talk-{number}.wav", 1.0, "", b"RIFF") for number in range(3)]

    asyncio.run(ask_for_all(serve(DONE, (429, ""), DONE).url, sent, 1, transcribe, counts.append))

    assert counts == [1, 2]
