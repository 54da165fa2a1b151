"""Words that a client says and no log or trace may repeat, and a request that says them all."""

import json
import wave
from io import BytesIO
from typing import Any

import httpx
import numpy as np

FILE_NAME = "marker-file.wav"
MARKERS = (
    "marker-file",
    "marker-prompt",
    "marker-metadata",
    "marker-tag",
    "marker-header",
    "marker-path",
    "marker-query",
    "marker-key",
    "marker-stranger",
    "marker-token",
    "marker refused",
    "marker-refused",
)


def noise(seconds: float = 12.0) -> bytes:
    """A recording that is nowhere silent, so that all of it counts as speech where detection is off."""
    samples = np.random.default_rng(7).integers(-9_000, 9_000, round(seconds * 16_000)).astype("<i2")
    out = BytesIO()
    with wave.open(out, "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    return out.getvalue()


def submit(http: httpx.Client, webhook_url: str, **headers: str) -> dict[str, Any]:
    """The job, asked for with a marker in every place where a client may write something."""
    answer = http.post(
        "/v1/jobs",
        files={"file": (FILE_NAME, noise(), "audio/wav")},
        data={
            "prompt": "marker-prompt",
            "metadata": json.dumps({"order": "marker-metadata"}),
            "tag": "marker-tag",
            "vad": "off",
            "webhook_url": f"{webhook_url}/marker-path?token=marker-query",
            "webhook_auth_header_name": "X-Hook",
            "webhook_auth_header_value": "marker-header",
        },
        headers={"Authorization": "Bearer marker-key"} | headers,
    )
    assert answer.status_code == 202, answer.text
    job: dict[str, Any] = answer.json()
    return job


def submit_address(http: httpx.Client, server_url: str) -> dict[str, Any]:
    """A job whose recording is to be fetched, with secrets in its address and in its headers."""
    answer = http.post(
        "/v1/jobs",
        json={
            "audio_url": f"{server_url}/{FILE_NAME}?sig=marker-query",
            "audio_url_headers": {"Authorization": "Bearer marker-token"},
        },
    )
    assert answer.status_code == 202, answer.text
    assert "marker-query" not in answer.text
    assert "marker-token" not in answer.text
    job: dict[str, Any] = answer.json()
    return job
