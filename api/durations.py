"""How long a recording seems to be, from its first bytes and its size: good enough to stand in line with.

Nothing is decoded here, and nothing depends on it but order and estimates: a file that lies about itself
gains or loses a place.
"""

import struct

HEAD_BYTES = 64

UNSEEN_S = 300.0
"""What a recording counts for that is still to be fetched."""

_USUAL_BYTES_PER_S = 16_000
"""128 kbit/s, what most compressed recordings have."""
_OPUS_BYTES_PER_S = 6_000
_LONGEST_S = 48 * 3600.0


def guess_duration_s(head: bytes, size_bytes: int) -> float:
    """`head` is the beginning of the file, HEAD_BYTES of it."""
    seconds = _wav_s(head, size_bytes) or _flac_s(head)
    if seconds is None:
        is_ogg = head.startswith((b"OggS", b"\x1aE\xdf\xa3"))
        seconds = size_bytes / (_OPUS_BYTES_PER_S if is_ogg else _USUAL_BYTES_PER_S)
    return min(seconds, _LONGEST_S)


def _wav_s(head: bytes, size_bytes: int) -> float | None:
    if len(head) < 32 or head[:4] != b"RIFF" or head[12:16] != b"fmt ":
        return None
    (bytes_per_s,) = struct.unpack_from("<I", head, 28)
    return size_bytes / bytes_per_s if bytes_per_s else None


def _flac_s(head: bytes) -> float | None:
    """STREAMINFO is the first block: https://www.rfc-editor.org/rfc/rfc9639.html#name-streaminfo."""
    if len(head) < 26 or head[:4] != b"fLaC":
        return None
    (packed,) = struct.unpack_from(">Q", head, 18)
    rate, samples = packed >> 44, packed & (1 << 36) - 1
    return samples / rate if rate and samples else None
