"""How long a clip of five seconds takes while a file of three hours is being transcribed, against alone.

    python -m benchmarks.company [--clips 20] [--minutes 180] [--settings ANANSE_DTYPE=float32]

A whole service on this machine (`ananse up`); clips come one after the other, first without company, then
with. The goal: 95 of 100 clips take at most twice their time alone. What that costs the file is told too: how
fast it gets on with clips all the time, one after the other, and without any.
"""

import argparse
import io
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import soundfile

from benchmarks.bento.figures import percentile
from benchmarks.bento.servers import ours
from tests.support.waiting import wait_until

SAMPLE = Path(__file__).resolve().parents[1] / "models" / "samples" / "five-minutes.flac"
CLIP_S = 5
CLIPS_APART_S = 11
"""From the start of one clip to that of the next, in the sample: no two are the same."""

DEFAULTS = {"ANANSE_REUSE": "false", "ANANSE_FLOWER_PORT": "0"}
"""The sample comes again and again in the long file."""

PATIENCE_S = 600.0
WARM_UP_CLIPS = 2
ALONE_S = 30.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=20)
    parser.add_argument("--minutes", type=int, default=180)
    parser.add_argument("--settings", nargs="*", default=[], help="NAME=VALUE")
    asked = parser.parse_args()
    settings = DEFAULTS | dict(pair.split("=", 1) for pair in asked.settings)
    with ours(settings) as server, httpx.Client(base_url=server.url, timeout=PATIENCE_S) as client:
        _times(client, WARM_UP_CLIPS)
        alone = _times(client, asked.clips)
        print(row("alone", alone), flush=True)
        with _company(client, asked.minutes) as job_id:
            began, done_s = time.perf_counter(), _progress(client, job_id)
            beside = _times(client, asked.clips)
            with_clips = (_progress(client, job_id) - done_s) / (time.perf_counter() - began)
            began, done_s = time.perf_counter(), _progress(client, job_id)
            time.sleep(ALONE_S)
            without = (_progress(client, job_id) - done_s) / (time.perf_counter() - began)
    print(row(f"beside {asked.minutes} min", beside))
    print(f"p95 beside / alone: {ratio(alone, beside):.2f} (goal: at most 2)")
    print(f"the file meanwhile: {with_clips:.1f} x real time with clips, {without:.1f} without")


def row(name: str, seconds: list[float]) -> str:
    return (
        f"{name:16} p50 {statistics.median(seconds):6.2f} s   p95 {percentile(seconds, 95):6.2f} s   "
        f"most {max(seconds):6.2f} s   of {len(seconds)}"
    )


def ratio(alone: list[float], beside: list[float]) -> float:
    """Of the ninety-fifth percentiles."""
    return percentile(beside, 95) / percentile(alone, 95)


def _times(client: httpx.Client, count: int) -> list[float]:
    """From the request to the transcript at hand, of each clip."""
    sound, rate = soundfile.read(SAMPLE, dtype="int16")
    seconds = []
    for number in range(count):
        first = number * CLIPS_APART_S * rate % (len(sound) - CLIP_S * rate)
        began = time.perf_counter()
        job = _send(client, "clip.wav", _wav(sound[first : first + CLIP_S * rate], rate))
        while job["status"] not in ("completed", "failed", "canceled"):
            job = client.get(f"/v1/jobs/{job['id']}", params={"wait": 30}).raise_for_status().json()
        if job["status"] != "completed":
            raise SystemExit(f"a clip has {job['status']}: {job}")
        client.get(f"/v1/jobs/{job['id']}/transcript").raise_for_status()
        seconds.append(time.perf_counter() - began)
    return seconds


@contextmanager
def _company(client: httpx.Client, minutes: int) -> Iterator[str]:
    """A long file, well on its way and far from its end; its job's id."""
    sound, rate = soundfile.read(SAMPLE, dtype="int16")
    whole = np.tile(sound, -(-minutes * 60 * rate // len(sound)))[: minutes * 60 * rate]
    job = _send(client, "long.flac", _flac(whole, rate))
    wait_until(lambda: _progress(client, job["id"]) > 0, PATIENCE_S)
    try:
        yield job["id"]
        if _status(client, job["id"])["status"] == "completed":
            raise SystemExit("the long file has ended before the clips: ask for more --minutes")
    finally:
        client.post(f"/v1/jobs/{job['id']}/cancel")


def _progress(client: httpx.Client, job_id: str) -> float:
    job = _status(client, job_id)
    if job["status"] in ("failed", "canceled"):
        raise SystemExit(f"the long file has {job['status']}: {job}")
    return float(job["progress"]["done_s"])


def _status(client: httpx.Client, job_id: str) -> dict[str, Any]:
    status: dict[str, Any] = client.get(f"/v1/jobs/{job_id}").raise_for_status().json()
    return status


def _send(client: httpx.Client, name: str, content: bytes) -> dict[str, Any]:
    answer = client.post("/v1/jobs", files={"file": (name, content)}, data={"language": "en"})
    job: dict[str, Any] = answer.raise_for_status().json()
    return job


def _wav(pcm: Any, rate: int) -> bytes:
    content = io.BytesIO()
    soundfile.write(content, pcm, rate, format="WAV")
    return content.getvalue()


def _flac(pcm: Any, rate: int) -> bytes:
    content = io.BytesIO()
    soundfile.write(content, pcm, rate, format="FLAC")
    return content.getvalue()


if __name__ == "__main__":
    main()
