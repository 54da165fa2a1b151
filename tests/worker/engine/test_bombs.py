"""Small files that ask for much: time, memory, samples, streams. Each comes to its end with its name, within
seconds and within the memory a decoder may have."""

import struct
import time
import wave
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from shared.errors import (
    CorruptAudio,
    DecodeLimit,
    DecodeTimeout,
    EmptyAudio,
    JobError,
    NoAudio,
    OutOfMemory,
    TooLong,
    UnsupportedFormat,
)
from tests.support.boxes import box, replaced
from tests.support.recordings import encode, tone, write_wav
from worker.engine.audio import DecodeLimits, decode
from worker.engine.values import SAMPLE_RATE

SOON_S = 60.0
LIMITS = DecodeLimits(timeout_s=SOON_S, memory_bytes=1 << 30, max_duration_s=1800.0, opening_s=5.0)
SECONDS = 2.0

Bomb = Callable[[Path], object]
FINE: dict[str, Bomb] = {}
"""Files that are only odd: their sound is to be had."""

FAILING: dict[str, tuple[Bomb, tuple[type[JobError], ...]]] = {}


def fine(make: Bomb) -> Bomb:
    FINE[make.__name__] = make
    return make


def failing(*errors: type[JobError]) -> Callable[[Bomb], Bomb]:
    def register(make: Bomb) -> Bomb:
        FAILING[make.__name__] = (make, errors)
        return make

    return register


@failing(DecodeLimit)
def a_thousand_hours_at_one_hertz(path: Path) -> None:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 1, 1, 0, "NONE", ""))
        file.writeframes(bytes(3_600_000))


@failing(UnsupportedFormat)
def a_playlist_of_itself(path: Path) -> None:
    path.write_text("ffconcat version 1.0\n" + f"file {path.name}\n" * 1_000_000)


@failing(DecodeLimit, TooLong)
def a_flac_at_one_hertz(path: Path) -> None:
    encode(path, "flac", "flac", tone(SECONDS), SAMPLE_RATE)
    content = bytearray(path.read_bytes())
    # Twenty bits of the first block, behind the block and frame sizes.
    (word,) = struct.unpack_from(">I", content, 18)
    struct.pack_into(">I", content, 18, word & 0xFFF | 1 << 12)
    path.write_bytes(content)


@failing(DecodeLimit)
def two_hundred_and_fifty_five_channels(path: Path) -> None:
    write_wav(path, *[tone(0.01)] * 255)


@failing(EmptyAudio, CorruptAudio)
def four_gigabytes_in_44_bytes(path: Path) -> None:
    write_wav(path, tone(0.0))
    content = bytearray(path.read_bytes())
    struct.pack_into("<I", content, 4, 0xFFFF_FFF0)
    struct.pack_into("<I", content, 40, 0xFFFF_FFF0)
    path.write_bytes(content[:44])


@failing(TooLong)
def a_day_of_holes_in_the_timestamps(path: Path) -> None:
    """A frame of a tenth of a second in each minute: nearly all of it is silence that we would make."""
    with av.open(path, "w", format="matroska") as output:
        stream = output.add_stream("pcm_s16le", rate=SAMPLE_RATE, layout="mono")
        for number in range(24 * 60):
            frame = av.AudioFrame.from_ndarray(tone(0.1)[None], format="s16", layout="mono")
            frame.sample_rate, frame.time_base = SAMPLE_RATE, Fraction(1, SAMPLE_RATE)
            frame.pts = number * 59 * SAMPLE_RATE
            output.mux(stream.encode(frame))


@failing(CorruptAudio, NoAudio, OutOfMemory)
def a_header_that_unpacks_to_gigabytes(path: Path) -> None:
    packed = zlib.compress(bytes(64 << 20), 9)
    size = struct.pack(">I", 0x7FFF_FFFF)
    inside = box(b"cmov", box(b"dcom", b"zlib") + box(b"cmvd", size + packed))
    path.write_bytes(box(b"ftyp", b"qt  " + bytes(4)) + box(b"moov", inside))


@failing(CorruptAudio, NoAudio)
def boxes_in_boxes_in_boxes(path: Path) -> None:
    inside = b""
    for _ in range(20_000):
        inside = box(b"moov", inside)[-400_000:]
    path.write_bytes(box(b"ftyp", b"isom" + bytes(4)) + inside)


@failing(TooLong)
def an_hour_that_no_header_declares(path: Path) -> None:
    """One frame of silence, 72 bytes for as many milliseconds, again and again."""
    frame = bytes.fromhex("ffe318c4") + bytes(68)
    path.write_bytes(frame * 50_000)


@failing(DecodeTimeout)
def a_million_tags(path: Path) -> None:
    encode(path, "flac", "flac", tone(SECONDS), SAMPLE_RATE)
    content = path.read_bytes()
    tag = struct.pack("<I", 3) + b"A=B"
    tags = tag + struct.pack("<I", 1_000_000) + tag * 1_000_000
    path.write_bytes(content[:42] + b"\x84" + len(tags).to_bytes(3, "big") + tags + frames_of(content))


@fine
def a_cover_of_a_gigapixel(path: Path) -> None:
    encode(path, "flac", "flac", tone(SECONDS), SAMPLE_RATE)
    content = path.read_bytes()
    size = struct.pack(">II", 30_000, 30_000)
    head = b"IHDR" + size + b"\x08\x06\x00\x00\x00"
    picture = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
    picture += png_chunk(b"IDAT", zlib.compress(bytes(8 << 20), 9)) + png_chunk(b"IEND", b"")
    block = struct.pack(">I", 3) + struct.pack(">I", 9) + b"image/png" + bytes(4) + size
    block += struct.pack(">II", 32, 0) + struct.pack(">I", len(picture)) + picture
    path.write_bytes(content[:42] + b"\x86" + len(block).to_bytes(3, "big") + block + frames_of(content))


@failing(TooLong)
def an_edit_list_that_loops(path: Path) -> None:
    encode(path, "mov", "pcm_s16le", tone(SECONDS), SAMPLE_RATE)
    content = path.read_bytes()
    edits = b"".join(struct.pack(">IiI", 100, 0, 1 << 16) for _ in range(100_000))
    loop = box(b"edts", box(b"elst", bytes(4) + struct.pack(">I", 100_000) + edits))
    path.write_bytes(replaced(content, [b"moov", b"trak", b"edts"], loop))


def frames_of(flac: bytes) -> bytes:
    """What is behind the last block of a FLAC's head."""
    at = 4
    while True:
        is_last, size = flac[at] & 0x80, int.from_bytes(flac[at + 1 : at + 4], "big")
        at += 4 + size
        if is_last:
            return flac[at:]


def png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


@pytest.mark.parametrize("bomb", FAILING)
def test_a_bomb_ends_with_its_name(tmp_path: Path, bomb: str) -> None:
    make, errors = FAILING[bomb]
    make(tmp_path / "upload")
    heard = 0

    began = time.monotonic()
    with pytest.raises(errors), decode(tmp_path / "upload", LIMITS) as decoding:  # noqa: PT012 - how far it got
        for block in decoding.blocks():
            heard += len(block)

    assert time.monotonic() - began < SOON_S
    assert heard <= LIMITS.max_duration_s * SAMPLE_RATE


@pytest.mark.parametrize("bomb", FINE)
def test_what_is_only_odd_is_decoded(tmp_path: Path, bomb: str) -> None:
    FINE[bomb](tmp_path / "upload")

    began = time.monotonic()
    with decode(tmp_path / "upload", LIMITS) as decoding:
        sound = np.concatenate(list(decoding.blocks()))

    assert time.monotonic() - began < SOON_S
    assert len(sound) / SAMPLE_RATE == pytest.approx(SECONDS, abs=0.2)
