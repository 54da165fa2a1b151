"""What the worker and its decoder say to each other: one request, then a stream of messages back.

Imported by both, so standard library only.
"""

import json
import struct
import sys
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

SAMPLE_RATE = 16_000
SAMPLE_BYTES = 2
LANES = 2
"""Of two channels both their half sum and their half difference are sent: see mixing.py."""


class Kind(StrEnum):
    """What a message from the child holds. A stream of them is PROBE, MONO or LANES…, END; or it stops at
    FAILURE."""

    PROBE = "P"
    MONO = "S"
    LANES = "L"
    END = "E"
    FAILURE = "F"


MESSAGE = struct.Struct(">cI")
"""Kind and payload size in bytes. Sound is s16 in native order; the other payloads are JSON."""


@dataclass(frozen=True, slots=True)
class Request:
    """`fd` is the file to decode, open for reading and seekable. `duration_is_exact`: the duration that libav
    tells is no guess. `promised_s`: what the file's header says beyond that."""

    fd: int
    demuxer: str
    duration_is_exact: bool
    promised_s: float | None
    parent_pid: int
    memory_bytes: int
    cpu_s: int
    max_duration_s: float
    start_s: float
    end_s: float | None


class Refusal(Exception):
    """The file cannot be decoded; `code` is one of those in shared/errors.py."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


def send_failure(refusal: Refusal) -> None:
    send_json(Kind.FAILURE, {"code": refusal.code, "detail": refusal.detail})


def send_json(kind: Kind, payload: dict[str, Any]) -> None:
    send(kind, json.dumps(payload).encode())


def send(kind: Kind, payload: bytes | bytearray) -> None:
    out = sys.stdout.buffer
    out.write(MESSAGE.pack(kind.encode(), len(payload)))
    out.write(payload)
    out.flush()
