"""`ananse demo`: one sample recording through the public API of a running server, as a client sends it."""

import argparse
import sys
import textwrap
import time
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import urlsplit

import httpx

from deploy.addresses import Address, is_loopback
from deploy.errors import StartError
from deploy.progress import Progress
from shared.settings import load

SAMPLE = Path(__file__).resolve().parent.parent / "models" / "samples" / "minute.flac"
_DEMONSTRATION_MODEL = "synthetic-en"
_POLL_S = 0.2
_TIMEOUT_S = 30.0
_WRAP = 100
_ENDED = frozenset({"completed", "failed", "canceled", "expired"})


def add_to(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("demo", help="transcribe a sample recording on a running server")
    parser.add_argument("--url", help="the server's address (default: from the settings)")
    parser.add_argument(
        "--audio", type=Path, default=SAMPLE, help="a recording (default: the bundled minute)"
    )
    parser.add_argument("--key", help="API key, where the server asks for one")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Raises StartError when there is no transcript at the end."""
    url = arguments.url or _own_url()
    headers = {"Authorization": f"Bearer {arguments.key}"} if arguments.key else {}
    # A proxy is for servers elsewhere.
    is_elsewhere = not is_loopback(urlsplit(url).hostname or "")
    with httpx.Client(base_url=url, headers=headers, timeout=_TIMEOUT_S, trust_env=is_elsewhere) as client:
        try:
            demonstrate(client, arguments.audio, sys.stdout)
        except httpx.HTTPError as error:
            raise StartError(f"the server at {url} does not answer ({error})") from error
    return 0


def demonstrate(client: httpx.Client, recording: Path, stream: TextIO) -> None:
    """Submits, follows, shows."""
    sent_at = time.monotonic()
    job = submit(client, recording)
    print(f"\nTranscribing {recording.name} with {_introduce(job)}", file=stream, flush=True)
    job = follow(client, str(job["id"]), Progress(stream))
    if job["status"] != "completed":
        raise StartError(f"the sample was not transcribed: the job ended as {job['status']}{_reason(job)}")
    text = _answer(client.get(f"/v1/jobs/{job['id']}/transcript", params={"format": "text"})).text
    print(f"\n{_wrapped(text)}\n\n{_pace(job, time.monotonic() - sent_at)}", file=stream, flush=True)


def submit(client: httpx.Client, recording: Path) -> dict[str, Any]:
    try:
        sound = recording.read_bytes()
    except OSError as error:
        raise StartError(f"{recording} cannot be read ({error.strerror}); name one with --audio") from error
    headers = {"Content-Type": "audio/flac" if recording.suffix == ".flac" else "application/octet-stream"}
    return _document(client.post("/v1/jobs", content=sound, headers=headers))


def follow(client: httpx.Client, job_id: str, progress: Progress) -> dict[str, Any]:
    """The job once it has ended."""
    while True:
        job = _document(client.get(f"/v1/jobs/{job_id}"))
        is_complete = job["status"] == "completed"
        fraction = 1.0 if is_complete else float((job.get("progress") or {}).get("fraction") or 0.0)
        progress.show(job["status"] if is_complete else str(job.get("stage") or job["status"]), fraction)
        if job["status"] in _ENDED:
            progress.done()
            return job
        time.sleep(_POLL_S)


def _document(response: httpx.Response) -> dict[str, Any]:
    document: dict[str, Any] = _answer(response).json()
    return document


def _answer(response: httpx.Response) -> httpx.Response:
    """Raises StartError with the words of the problem document."""
    if response.is_success:
        return response
    if response.headers.get("content-type", "").startswith("application/problem+json"):
        problem = response.json()
        cause = f"{problem.get('code')}: {problem.get('detail') or problem.get('title')}"
    else:
        cause = f"status {response.status_code}"
    raise StartError(f"the server refused the sample ({cause})")


def _introduce(job: dict[str, Any]) -> str:
    model = job.get("model") or {}
    name = str(model.get("name") if isinstance(model, dict) else model)
    if name == _DEMONSTRATION_MODEL:
        return (
            f"{name}: a small demonstration model\n"
            "trained on synthetic speech; set ANANSE_MODELS for real recordings."
        )
    return f"{name}."


def _reason(job: dict[str, Any]) -> str:
    error = job.get("error")
    return f" ({error.get('code')}: {error.get('detail')})" if error else ""


def _wrapped(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), _WRAP, initial_indent="  ", subsequent_indent="  ")


def _pace(job: dict[str, Any], took_s: float) -> str:
    duration_s = float((job.get("media") or {}).get("duration_s") or 0.0)
    if not duration_s:
        return f"Took {took_s:.1f} s."
    rtf = took_s / duration_s
    return f"{duration_s:.0f} s of speech in {took_s:.1f} s, upload and all: real-time factor {rtf:.3f}."


def _own_url() -> str:
    settings = load()
    return Address(settings.host, settings.port).url
