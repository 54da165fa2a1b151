"""A short recording in every container that is taken, to be broken."""

from pathlib import Path

from tests.support.recordings import encode, tone

FORMS = (
    ("wav", "pcm_s16le", 16_000),
    ("w64", "pcm_s24le", 48_000),
    ("aiff", "pcm_s16be", 22_050),
    ("caf", "pcm_s16be", 44_100),
    ("flac", "flac", 44_100),
    ("mp3", "libmp3lame", 44_100),
    ("adts", "aac", 48_000),
    ("ipod", "aac", 44_100),
    ("mov", "alac", 44_100),
    ("ogg", "libopus", 48_000),
    ("webm", "libopus", 48_000),
    ("asf", "wmav2", 44_100),
    ("amr", "libopencore_amrnb", 8_000),
)


def own_files(folder: Path) -> dict[str, bytes]:
    """`folder` takes what is written on the way."""
    folder.mkdir(exist_ok=True)
    return {
        f"{container}-{codec}": encode(
            folder / container, container, codec, tone(1.5, rate), rate
        ).read_bytes()
        for container, codec, rate in FORMS
    }
