import io
from pathlib import Path

import httpx
import pytest

from deploy import first_run
from deploy.errors import StartError


class Server:
    """Answers as the API does; `jobs` are what one GET after the other shows."""

    def __init__(self, *jobs: dict[str, object]) -> None:
        self._jobs = [
            {"id": "job_1", "model": {"name": "synthetic-en"}, "media": {"duration_s": 60}} | job
            for job in jobs
        ]
        self.sent = b""

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            self.sent = request.read()
            return httpx.Response(202, json=self._jobs[0])
        if request.url.path.endswith("/transcript"):
            return httpx.Response(200, text="so it was said")
        return httpx.Response(200, json=self._jobs.pop(0))


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "speech.flac"
    path.write_bytes(b"sound")
    return path


def client(server: "Server | httpx.MockTransport") -> httpx.Client:
    transport = server if isinstance(server, httpx.MockTransport) else httpx.MockTransport(server)
    return httpx.Client(transport=transport, base_url="http://server")


def test_shows_the_transcript_and_what_the_model_is(recording: Path) -> None:
    server = Server(
        {"status": "running", "stage": "transcribing", "progress": {"fraction": 0.5}},
        {"status": "completed", "stage": None},
    )
    stream = io.StringIO()
    first_run.demonstrate(client(server), recording, stream)
    assert server.sent == b"sound"
    assert "so it was said" in stream.getvalue()
    assert "small demonstration model" in stream.getvalue()
    assert "50%  transcribing" in stream.getvalue()
    assert "real-time factor" in stream.getvalue()


def test_a_failed_job_is_named_with_its_code(recording: Path) -> None:
    server = Server(
        {"status": "failed", "error": {"code": "corrupt_audio", "detail": "The file is damaged."}}
    )
    with pytest.raises(StartError, match=r"failed \(corrupt_audio: The file is damaged"):
        first_run.demonstrate(client(server), recording, io.StringIO())


def test_a_refusal_is_told_in_the_servers_words(recording: Path) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        return httpx.Response(
            401,
            headers={"content-type": "application/problem+json"},
            json={"code": "unauthorized", "title": "A valid API key is needed"},
        )

    with pytest.raises(StartError, match="unauthorized: A valid API key"):
        first_run.demonstrate(client(httpx.MockTransport(refuse)), recording, io.StringIO())


def test_a_missing_recording_is_named() -> None:
    with pytest.raises(StartError, match="none-such"):
        first_run.demonstrate(client(Server()), Path("none-such.flac"), io.StringIO())
