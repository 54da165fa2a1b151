"""Step 5, decode: any recording becomes mono sound at 16 kHz, in blocks, by way of a bounded child process.

What the bytes are is settled here, before libav sees them; what is done with them is in `decoder/`. Nothing
the child says is taken on trust: the file may have taken it over.
"""

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self, TypeVar

import numpy as np

from shared.errors import DecoderCrashed, DecodeTimeout, JobError, TooLong
from worker.engine import told
from worker.engine.decoder.protocol import LANES, MESSAGE, SAMPLE_BYTES, Kind, Request
from worker.engine.decoder.sandbox import Guard
from worker.engine.media_format import MediaFormat, format_of, sniff
from worker.engine.mixing import Mix
from worker.engine.told import Probe
from worker.engine.values import SAMPLE_RATE, Pcm

__all__ = ["DecodeLimits", "Decoding", "Probe", "decode", "sniff"]

DECODER = Path(__file__).parent / "decoder"
BLOCK_SECONDS = 30
BLOCK_BYTES = BLOCK_SECONDS * SAMPLE_RATE * SAMPLE_BYTES
MILLISECONDS = 1_000
REPORT_BYTES = 2_000
CPU_MARGIN_S = 1

MAX_PAYLOAD_BYTES = 1 << 20
"""A decoder that has been taken over shall not fill our memory either."""

CHILD_ENVIRONMENT = {"LC_ALL": "C.UTF-8"}

KINDS = {kind.encode(): kind for kind in Kind}
SOUND = {Kind.MONO: SAMPLE_BYTES, Kind.LANES: LANES * SAMPLE_BYTES}
"""Bytes of one sample over all lanes."""

BROKEN = "the child broke the protocol"

T = TypeVar("T")


OPENING_S = 60.0
"""A head of a million tags keeps libav busy for many minutes, as it copies all of them for each."""


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """`timeout_s` counts the time spent waiting for the child, not the time the reader takes for a block. Of
    that, `opening_s` may go by before anything is known of the file."""

    timeout_s: float
    memory_bytes: int
    max_duration_s: float
    opening_s: float = OPENING_S


def decode(
    path: Path, limits: DecodeLimits, *, start_s: float | None = None, end_s: float | None = None
) -> "Decoding":
    """Starts decoding; sample 0 of the first block lies at `start_s`. Raises a JobError that names the cause.

    To be used with `with`, in a thread that outlives it: Linux ends the child with the thread that began it.
    """
    with path.open("rb", buffering=0) as media:
        found = format_of(media)
        return Decoding(media.fileno(), found, limits, start_s or 0.0, end_s)


class Decoding:
    """One running decode. Leaving the `with` block ends the child, whatever it is doing."""

    def __init__(
        self, media_fd: int, found: MediaFormat, limits: DecodeLimits, start_s: float, end_s: float | None
    ) -> None:
        self._timeout_s = limits.timeout_s
        self._wait_left_s = self._allowed_s = min(limits.opening_s, limits.timeout_s)
        self._max_duration_s = limits.max_duration_s
        self._max_bytes = round(limits.max_duration_s * SAMPLE_RATE) * SAMPLE_BYTES
        self._folder = tempfile.TemporaryDirectory(prefix="decode-", ignore_cleanup_errors=True)
        self._report = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self.decoded_s = 0.0
        self.warnings: tuple[str, ...] = ()
        request = Request(
            fd=media_fd,
            demuxer=found.demuxer,
            duration_is_exact=found.duration_is_exact,
            promised_s=found.promised_s,
            parent_pid=os.getpid(),
            memory_bytes=limits.memory_bytes,
            cpu_s=int(limits.timeout_s) + CPU_MARGIN_S,
            max_duration_s=limits.max_duration_s,
            start_s=start_s,
            end_s=end_s,
        )
        self._child = _start(request, self._folder.name, self._report)
        assert self._child.stdout is not None
        self._pipe = self._child.stdout
        try:
            self.probe = self._read_probe()
            self._wait_left_s += self._timeout_s - self._allowed_s
            self._allowed_s = self._timeout_s
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._child.poll() is None:
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()
        self._pipe.close()
        self._report.close()
        self._folder.cleanup()

    @property
    def waited_s(self) -> float:
        """Seconds spent so far on waiting for the child: what decoding takes."""
        return self._timeout_s - self._wait_left_s

    def blocks(self) -> Iterator[Pcm]:
        """The sound in blocks of 30 s, the last one shorter. To be walked once."""
        block = bytearray()
        received = 0
        mix = Mix()
        while (message := self._read_message())[0] in SOUND:
            samples = self._mono(mix, *message)
            received += len(samples)
            if received > self._max_bytes:
                raise TooLong(f"The recording is longer than {self._max_duration_s:.0f} seconds.")
            block += samples
            while len(block) >= BLOCK_BYTES:
                yield np.frombuffer(bytes(block[:BLOCK_BYTES]), np.int16)
                del block[:BLOCK_BYTES]
        kind, payload = message
        if kind is not Kind.END:
            raise self._crash(BROKEN)
        self.warnings = mix.warnings() + self._believe(told.warnings, payload)
        self.decoded_s = received / SAMPLE_BYTES / SAMPLE_RATE
        if block:
            yield np.frombuffer(bytes(block), np.int16)

    def _read_probe(self) -> Probe:
        kind, payload = self._read_message()
        if kind is not Kind.PROBE:
            raise self._crash(BROKEN)
        return self._believe(told.probe, payload)

    def _mono(self, mix: Mix, kind: Kind, samples: bytes) -> bytes:
        if len(samples) % SOUND[kind]:
            raise self._crash(BROKEN)
        return mix.mono(samples) if kind is Kind.LANES else samples

    def _read_message(self) -> tuple[Kind, bytes]:
        """Raises the failure if the message is one."""
        letter, size = MESSAGE.unpack(self._read(MESSAGE.size))
        if size > MAX_PAYLOAD_BYTES or letter not in KINDS:
            raise self._crash(BROKEN)
        kind, payload = KINDS[letter], self._read(size)
        if kind is Kind.FAILURE:
            raise self._believe(told.failure, payload)
        return kind, payload

    def _believe(self, read: Callable[[bytes], T], payload: bytes) -> T:
        try:
            return read(payload)
        except ValueError as error:
            raise self._crash(BROKEN) from error

    def _read(self, size: int) -> bytes:
        filled = bytearray()
        while len(filled) < size:
            self._wait()
            piece = self._pipe.read(size - len(filled))
            if not piece:
                raise self._untold_end()
            filled += piece
        return bytes(filled)

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._pipe, select.POLLIN)
        began = time.monotonic()
        is_ready = poll.poll(max(self._wait_left_s, 0.0) * MILLISECONDS)
        self._wait_left_s -= time.monotonic() - began
        if not is_ready:
            raise self._timeout()

    def _untold_end(self) -> JobError:
        """What it means that the child's pipe closed before its last message."""
        try:
            status = self._child.wait(max(self._wait_left_s, 0.0))
        except subprocess.TimeoutExpired as error:
            raise self._timeout() from error
        if status == -signal.SIGXCPU:
            return DecodeTimeout(f"Decoding took more than {self._timeout_s:g} seconds of processor time.")
        return self._crash(f"signal {-status}" if status < 0 else f"exit status {status}")

    def _timeout(self) -> DecodeTimeout:
        return DecodeTimeout(f"Decoding did not end within {self._allowed_s:g} seconds.")

    def _crash(self, cause: str) -> DecoderCrashed:
        """The child's standard error becomes a note: it shows in our traceback and to no client."""
        error = DecoderCrashed()
        size = self._report.seek(0, os.SEEK_END)
        self._report.seek(max(size - REPORT_BYTES, 0))
        error.add_note(f"decoder: {cause}\n{self._report.read().decode(errors='replace')}")
        return error


def guards_here(limits: DecodeLimits) -> tuple[Guard, ...]:
    """Decodes a breath of silence, to see what this machine grants a decoder. Raises a JobError."""
    with tempfile.TemporaryFile() as media:
        with wave.open(media, "wb") as silence:
            silence.setparams((1, SAMPLE_BYTES, SAMPLE_RATE, 0, "NONE", ""))
            silence.writeframes(bytes(SAMPLE_BYTES * SAMPLE_RATE // 10))
        # The child reads from where the descriptor stands.
        media.seek(0)
        with Decoding(media.fileno(), format_of(media), limits, 0.0, None) as decoding:
            for _ in decoding.blocks():
                pass
            return decoding.probe.guards


def _start(request: Request, folder: str, report: IO[bytes]) -> "subprocess.Popen[bytes]":
    """No descriptor but the file's, no environment, a session of its own; the rest it gives up by itself."""
    return subprocess.Popen(
        [sys.executable, "-I", "-B", str(DECODER), json.dumps(asdict(request))],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=report,
        bufsize=0,
        pass_fds=(request.fd,),
        cwd=folder,
        env=CHILD_ENVIRONMENT,
        start_new_session=True,
    )
