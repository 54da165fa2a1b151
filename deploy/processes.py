"""One child process: how it is started, heard, signalled and found dead."""

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

_TETHER = Path(__file__).with_name("tether.py")
_READ_BYTES = 65_536
_TAIL_LINES = 20


@dataclass(frozen=True, slots=True)
class Service:
    """A command that is to run for as long as the supervisor does.

    `environment` is the whole of it. After SIGTERM the child has `grace_s`. When the supervisor is killed,
    the child gets `death_signal`. Those of one `crew` are stopped at the same time.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    grace_s: float = 10.0
    death_signal: signal.Signals = signal.SIGKILL
    crew: str = ""


class Child:
    """A running service: the head of its own session and process group.

    Must be made by a thread that lives as long as the child should: Linux sends the death signal when that
    thread ends. `hear` gets every line of its output, with the newline.
    """

    def __init__(self, service: Service, hear: Callable[[bytes], None]) -> None:
        self.service = service
        self.started_at = time.monotonic()
        self.tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._hear = hear
        self._pending = b""
        self._process = subprocess.Popen(
            [*_tethered(service.death_signal), *service.command],
            env=dict(service.environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self._output = self._process.stdout
        os.set_blocking(self._output.fileno(), False)

    @property
    def pid(self) -> int:
        return self._process.pid

    def fileno(self) -> int:
        return self._output.fileno()

    def listen(self) -> bool:
        """Takes some of what the child has written; False once nothing more can come."""
        written = self._read()
        if written is not None:
            self._take(written)
        return written != b""

    def ended(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self._process.poll()

    def send(self, number: signal.Signals) -> None:
        """Signals the whole group, so that nothing the child started is left behind."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def terminate(self) -> None:
        """Asks the head of the group; how its own children end is its affair."""
        if self.ended() is None:
            self._process.terminate()

    def bury(self) -> None:
        """Ends what is left of the group, takes the last words, gives back the pipe."""
        self.send(signal.SIGKILL)
        self._process.wait()
        while written := self._read():
            self._take(written)
        self._take(b"")
        self._output.close()

    def _read(self) -> bytes | None:
        """None when there is nothing now, empty when there will be nothing any more."""
        try:
            return os.read(self._output.fileno(), _READ_BYTES)
        except BlockingIOError:
            return None

    def _take(self, written: bytes) -> None:
        *lines, self._pending = (self._pending + written).split(b"\n")
        if not written and self._pending:
            lines, self._pending = [self._pending], b""
        for line in lines:
            self.tail.append(line.decode(errors="replace"))
            self._hear(line + b"\n")


@contextmanager
def attached(command: tuple[str, ...]) -> "Iterator[subprocess.Popen[bytes]]":
    """A process that writes where we write, for as long as the block."""
    process = subprocess.Popen([*_tethered(signal.SIGKILL), *command], start_new_session=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _tethered(death_signal: signal.Signals) -> tuple[str, ...]:
    # -I and -S: nothing of the user's Python is loaded, so this costs some 15 ms.
    return (sys.executable, "-I", "-S", str(_TETHER), str(int(death_signal)), str(os.getpid()))
