"""Which demuxer a file's first bytes call for. Nothing but known audio and video containers passes: no
playlists, no manifests, no text, whatever the file is called.
"""

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO

from shared.errors import EmptyAudio, UnsupportedFormat

HEAD_BYTES = 64 * 1024
ID3_HEADER = struct.Struct(">3sBBB4s")
FRAMES_IN_A_ROW = 3
"""Raw mp3 and aac streams have no magic number, only frame headers that lead to one another."""

JUNK_BYTES = 4 * 1024

MPEG_1, MPEG_2, MPEG_2_5 = 3, 2, 0
LAYER_III, LAYER_II = 1, 2
MPEG_RATES_HZ = {
    MPEG_1: (44_100, 48_000, 32_000),
    MPEG_2: (22_050, 24_000, 16_000),
    MPEG_2_5: (11_025, 12_000, 8_000),
}
LOW_BITRATES_KBIT = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
MPEG_BITRATES_KBIT = {
    (MPEG_1, LAYER_III): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (MPEG_1, LAYER_II): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (MPEG_2, LAYER_III): LOW_BITRATES_KBIT,
    (MPEG_2, LAYER_II): LOW_BITRATES_KBIT,
    (MPEG_2_5, LAYER_III): LOW_BITRATES_KBIT,
    (MPEG_2_5, LAYER_II): LOW_BITRATES_KBIT,
}

MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"fLaC", "flac"),
    (0, b"OggS", "ogg"),
    (0, b"\x1a\x45\xdf\xa3", "matroska"),
    (0, b"#!AMR", "amr"),
    (0, b"caff\x00", "caf"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf"),
    (0, b"riff\x2e\x91\xcf\x11", "w64"),
    (4, b"ftyp", "mov"),
    (4, b"moov", "mov"),
    (4, b"mdat", "mov"),
    (4, b"wide", "mov"),
    (4, b"free", "mov"),
    (4, b"skip", "mov"),
)

IFF: dict[bytes, tuple[tuple[bytes, ...], str]] = {
    b"RIFF": ((b"WAVE",), "wav"),
    b"RF64": ((b"WAVE",), "wav"),
    b"BW64": ((b"WAVE",), "wav"),
    b"FORM": ((b"AIFF", b"AIFC"), "aiff"),
}

RIFF_HEADER_BYTES = 12
CHUNK = struct.Struct("<4sI")
WAV_FORMAT = struct.Struct("<8xI")
"""Of the format chunk only the bytes per second."""

UNKNOWN_SIZE = 0x7FFF_0000
"""Recorders that write to a pipe put this or more where the size of the sound should be."""

GUESSED_DURATION = frozenset({"aac", "amr"})
VBR_TAGS = (b"Xing", b"Info", b"VBRI")
VBR_TAG_BYTES = 256
"""The frame that counts the others, where there is one, carries its tag this early."""


@dataclass(frozen=True, slots=True)
class MediaFormat:
    """`duration_is_exact` is false where libav can only guess a duration from the file's size. `promised_s`
    is what a WAV's header says of its length, where libav believes the file's size instead."""

    demuxer: str
    duration_is_exact: bool
    promised_s: float | None


def format_of(media: IO[bytes]) -> MediaFormat:
    """Raises EmptyAudio for an empty file and UnsupportedFormat for one that is no known media."""
    fd = media.fileno()
    head = os.pread(fd, HEAD_BYTES, 0)
    if not head:
        raise EmptyAudio("The file is empty.")
    tag_bytes = id3_bytes(head)
    if tag_bytes:
        head = os.pread(fd, HEAD_BYTES, tag_bytes)
    demuxer = sniff(head)
    if demuxer is None:
        raise UnsupportedFormat()
    return MediaFormat(demuxer, _duration_is_exact(demuxer, head), _wav_promise_s(head))


def sniff(head: bytes) -> str | None:
    """The name of the one demuxer that may open a file with these first bytes; None if it is no media."""
    for offset, magic, demuxer in MAGIC:
        if head.startswith(magic, offset):
            return demuxer
    if head[:4] in IFF:
        kinds, demuxer = IFF[head[:4]]
        return demuxer if head[8:12] in kinds else None
    return _sniff_frames(head)


def id3_bytes(head: bytes) -> int:
    """How long the ID3v2 tag at the very beginning is, 0 if there is none."""
    if len(head) < ID3_HEADER.size or not head.startswith(b"ID3"):
        return 0
    *_, size = ID3_HEADER.unpack_from(head)
    length = 0
    for byte in size:
        length = length << 7 | byte & 0x7F
    return ID3_HEADER.size + length


def _duration_is_exact(demuxer: str, head: bytes) -> bool:
    if demuxer == "mp3":
        begin = _first_frame(head, mp3_frame_bytes) or 0
        return any(tag in head[begin : begin + VBR_TAG_BYTES] for tag in VBR_TAGS)
    return demuxer not in GUESSED_DURATION


def _wav_promise_s(head: bytes) -> float | None:
    if not head.startswith(b"RIFF"):
        return None
    at, bytes_per_s = RIFF_HEADER_BYTES, 0
    while at + CHUNK.size <= len(head):
        name, size = CHUNK.unpack_from(head, at)
        at += CHUNK.size
        if name == b"fmt " and at + WAV_FORMAT.size <= len(head):
            (bytes_per_s,) = WAV_FORMAT.unpack_from(head, at)
        if name == b"data":
            return size / bytes_per_s if bytes_per_s and 0 < size < UNKNOWN_SIZE else None
        at += size + size % 2
    return None


def _sniff_frames(head: bytes) -> str | None:
    if _first_frame(head, mp3_frame_bytes) is not None:
        return "mp3"
    if _first_frame(head, adts_frame_bytes) is not None:
        return "aac"
    return None


def _first_frame(head: bytes, frame_bytes: Callable[[bytes, int], int | None]) -> int | None:
    """Where a chain of frames begins: the head of a cut recording may start in the middle of one."""
    begin = head.find(b"\xff", 0, JUNK_BYTES)
    while begin >= 0:
        if _is_chain(head, begin, frame_bytes):
            return begin
        begin = head.find(b"\xff", begin + 1, JUNK_BYTES)
    return None


def _is_chain(head: bytes, position: int, frame_bytes: Callable[[bytes, int], int | None]) -> bool:
    for count in range(FRAMES_IN_A_ROW):
        if position >= len(head):
            return count > 1
        size = frame_bytes(head, position)
        if size is None:
            return False
        position += size
    return True


def mp3_frame_bytes(head: bytes, at: int) -> int | None:
    """Size of the MPEG audio frame (layer II or III) whose header lies at `at`, None if none does."""
    header = head[at : at + 4]
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    version, layer = header[1] >> 3 & 3, header[1] >> 1 & 3
    bitrate_index, rate_index, padding = header[2] >> 4, header[2] >> 2 & 3, header[2] >> 1 & 1
    if version not in MPEG_RATES_HZ or (version, layer) not in MPEG_BITRATES_KBIT or rate_index > 2:
        return None
    if not 0 < bitrate_index < 15:
        return None
    bitrate = MPEG_BITRATES_KBIT[version, layer][bitrate_index - 1] * 1000
    bytes_per_frame = 72 if layer == LAYER_III and version != MPEG_1 else 144
    return bytes_per_frame * bitrate // MPEG_RATES_HZ[version][rate_index] + padding


def adts_frame_bytes(head: bytes, at: int) -> int | None:
    """Size of the AAC frame whose ADTS header lies at `at`, None if none does."""
    header = head[at : at + 7]
    if len(header) < 7 or header[0] != 0xFF or header[1] & 0xF6 != 0xF0:
        return None
    size = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
    return size if size > len(header) else None
