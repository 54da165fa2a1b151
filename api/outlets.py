"""Writes to many clients without waiting for any of them, and notices when they hang up. Knows sockets and
bytes, no jobs."""

import selectors
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

PING = b": ping\n\n"
PING_S = 15.0
_LAST_CHUNK = b"0\r\n\r\n"
_FULL_BYTES = 2**18
_TICK_S = 1.0
_HEARD_BYTES = 4096


@dataclass(eq=False, slots=True)
class Outlet:
    """A client's end: what it was not sent yet, and since when it takes nothing. `close` gives the connection
    back to whom it came from."""

    sock: socket.socket
    is_chunked: bool
    close: Callable[[], None]
    unsent: bytearray = field(default_factory=bytearray)
    moved_at: float = field(default_factory=time.monotonic)
    told_at: float = field(default_factory=time.monotonic)
    is_ending: bool = False

    @property
    def is_full(self) -> bool:
        return self.is_ending or len(self.unsent) > _FULL_BYTES


class Outlets:
    """`gone` is called with each outlet once it is over, just before its `close`.

    Whoever takes nothing for `patience_s` is cut, and so is everybody, cleanly, when the process stops.
    """

    def __init__(self, stopping: threading.Event, patience_s: float, gone: Callable[[Outlet], None]) -> None:
        self._stopping = stopping
        self._patience_s = patience_s
        self._gone = gone
        self._lock = threading.Lock()
        self._all: set[Outlet] = set()
        self._new: list[Outlet] = []
        self._due: set[Outlet] = set()
        self._thread: threading.Thread | None = None

    def add(self, outlet: Outlet) -> None:
        with self._lock:
            self._new.append(outlet)
            if self._thread is None:
                # Not before: the process is forked once it is wired.
                self._bell, self._button = _bell()
                self._selector = selectors.DefaultSelector()
                self._selector.register(self._bell, selectors.EVENT_READ)
                self._thread = threading.Thread(target=self._serve, name="outlets", daemon=True)
                self._thread.start()
        self.wake()

    def tell(self, outlet: Outlet, text: bytes) -> None:
        """Goes out after the next `wake`."""
        with self._lock:
            self._put(outlet, text)

    def end(self, outlet: Outlet) -> None:
        """Once all it was told is out."""
        with self._lock:
            self._finish(outlet)

    def wake(self) -> None:
        # Where it is full it rings already; where it is closed nobody is left.
        with suppress(OSError):
            self._button.send(b"!")

    def _put(self, outlet: Outlet, text: bytes) -> None:
        if not outlet.unsent:
            outlet.moved_at = time.monotonic()
        outlet.unsent += b"%x\r\n%b\r\n" % (len(text), text) if outlet.is_chunked else text
        outlet.told_at = time.monotonic()
        self._due.add(outlet)

    def _finish(self, outlet: Outlet) -> None:
        if not outlet.is_ending:
            outlet.is_ending = True
            outlet.unsent += _LAST_CHUNK if outlet.is_chunked else b""
            self._due.add(outlet)

    def _serve(self) -> None:
        tick = time.monotonic()
        is_over = False
        while not is_over:
            ready = self._selector.select(_TICK_S)
            with self._lock:
                over = {key.data for key, mask in ready if key.data and self._has_gone(key.data, mask)}
                self._register_new()
                if time.monotonic() >= tick:
                    tick = time.monotonic() + _TICK_S
                    over |= self._look_after()
                over |= {outlet for outlet in (self._due & self._all) - over if self._send(outlet)}
                self._due.clear()
                self._let_go(over)
                is_over = self._stopping.is_set() and not self._all
                if is_over:
                    self._close()
            for outlet in over:
                self._gone(outlet)
                outlet.close()

    def _let_go(self, over: set[Outlet]) -> None:
        self._all -= over
        for outlet in over:
            self._selector.unregister(outlet.sock)

    def _close(self) -> None:
        """Should one more come, it is served by a new thread."""
        self._thread = None
        self._selector.close()
        self._bell.close()
        self._button.close()

    def _register_new(self) -> None:
        with suppress(BlockingIOError):
            while self._bell.recv(_HEARD_BYTES):
                continue
        for outlet in self._new:
            outlet.sock.setblocking(False)
            self._selector.register(outlet.sock, selectors.EVENT_READ, outlet)
            self._all.add(outlet)
        self._new.clear()

    def _has_gone(self, outlet: Outlet, mask: int) -> bool:
        """Nobody has anything to say here but that it hangs up."""
        if mask & selectors.EVENT_WRITE:
            self._due.add(outlet)
        if mask & selectors.EVENT_READ:
            try:
                return outlet.sock.recv(_HEARD_BYTES) == b""
            except BlockingIOError:
                return False
            except OSError:
                return True
        return False

    def _look_after(self) -> set[Outlet]:
        """Pings who was told nothing for long. Those who take nothing."""
        now = time.monotonic()
        for outlet in self._all:
            if self._stopping.is_set():
                self._finish(outlet)
            elif not outlet.is_ending and now - outlet.told_at >= PING_S:
                self._put(outlet, PING)
        return {outlet for outlet in self._all if outlet.unsent and now - outlet.moved_at > self._patience_s}

    def _send(self, outlet: Outlet) -> bool:
        """What it takes now; whether it is over."""
        try:
            while outlet.unsent:
                sent = outlet.sock.send(outlet.unsent)
                del outlet.unsent[:sent]
                outlet.moved_at = time.monotonic()
        except BlockingIOError:
            pass
        except OSError:
            return True
        wants = selectors.EVENT_READ | (selectors.EVENT_WRITE if outlet.unsent else 0)
        if self._selector.get_key(outlet.sock).events != wants:
            self._selector.modify(outlet.sock, wants, outlet)
        return outlet.is_ending and not outlet.unsent


def _bell() -> tuple[socket.socket, socket.socket]:
    """What is pressed at one end rings at the other; neither end waits."""
    ends = socket.socketpair()
    for end in ends:
        end.setblocking(False)
    return ends
