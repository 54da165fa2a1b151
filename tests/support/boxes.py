"""The boxes of MP4 and MOV files, taken apart and put together: for files that no muxer would write."""

import struct
from collections.abc import Sequence

_HEAD = struct.Struct(">I4s")


def box(name: bytes, content: bytes) -> bytes:
    return _HEAD.pack(_HEAD.size + len(content), name) + content


def replaced(content: bytes, path: Sequence[bytes], new: bytes) -> bytes:
    """The same boxes, but for the first one at `path`, which is `new` now; all sizes are right. What lies at
    the file's end may grow without moving what others point to."""
    at = 0
    while at + _HEAD.size <= len(content):
        size, name = _HEAD.unpack_from(content, at)
        size = size or len(content) - at
        if name == path[0]:
            inside = content[at + _HEAD.size : at + size]
            now = new if len(path) == 1 else box(name, replaced(inside, path[1:], new))
            return content[:at] + now + content[at + size :]
        at += size
    raise AssertionError(f"there is no box {path[0]!r}")
