"""What the scenes of this folder share: an impatient service, and sounds that nothing else sounds like."""

import io
import sys
from pathlib import Path

import numpy as np
import psutil
import soundfile
from numpy.typing import NDArray

from shared.settings import Settings

SAMPLE_RATE = 16_000


def impatient(redis_url: str, folder: Path, **more: object) -> Settings:
    """A dead worker is noticed after two seconds, a lost hint after one."""
    ours: dict[str, object] = {
        "redis_url": redis_url,
        "blob_url": f"file://{folder}/blobs",
        "state_dir": folder / "state",
        "lease_s": 2,
        "hint_s": 1,
        "sweep_s": 0.2,
    }
    return Settings(**(ours | more))  # type: ignore[arg-type]


def noise(seconds: float, seed: int) -> NDArray[np.int16]:
    """The same seed gives the same sound, another one another."""
    return np.random.default_rng(seed).integers(-9000, 9000, round(seconds * SAMPLE_RATE), np.int16)


def encoded(pcm: NDArray[np.int16], remark: str = "") -> bytes:
    """As a WAV file. With another remark, other bytes of the same sound."""
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", SAMPLE_RATE, 1, "PCM_16", format="WAV") as recording:
        if remark:
            recording.comment = remark
        recording.write(pcm)
    return file.getvalue()


def say(line: object) -> None:
    """To whoever started the scene by hand."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def has_ended(pid: int) -> bool:
    """A child of ours that nobody has waited for yet counts as ended too."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
