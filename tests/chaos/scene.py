"""What the scenes of this folder share: an impatient service, and sounds that nothing else sounds like."""

import io
import sys
from ipaddress import ip_network
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from shared.settings import Settings

SAMPLE_RATE = 16_000
SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="


def impatient(redis_url: str, folder: Path, **more: object) -> Settings:
    """A dead worker is noticed after two seconds, a lost hint after one."""
    ours: dict[str, object] = {
        "redis_url": redis_url,
        "blob_url": f"file://{folder}/blobs",
        "state_dir": folder / "state",
        "lease_s": 2,
        "hint_s": 1,
        "sweep_s": 0.2,
        "webhook_allow": (ip_network("127.0.0.0/8"), ip_network("10.0.0.0/8")),
        "webhook_retry_s": (0.2,) * 8,
        "webhook_secret": SECRET,
    }
    return Settings(**(ours | more))  # type: ignore[arg-type]


def noise(seconds: float, seed: int) -> NDArray[np.int16]:
    """The same seed gives the same sound, another one another."""
    return np.random.default_rng(seed).integers(-9000, 9000, round(seconds * SAMPLE_RATE), np.int16)


def encoded(pcm: NDArray[np.int16], container: str = "WAV") -> bytes:
    """As WAV or FLAC: other bytes, the same samples."""
    file = io.BytesIO()
    soundfile.write(file, pcm, SAMPLE_RATE, format=container, subtype="PCM_16")
    return file.getvalue()


def say(line: object) -> None:
    """To whoever started the scene by hand."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
