"""Keeps services running: starts them in order, starts again what dies, stops them in reverse order.

One thread does it all. It has to be the main one: signals arrive there, and Linux ties a child's life to the
thread that started it. Nothing here knows what the services are.
"""

import selectors
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from deploy.errors import EXIT_CONFIGURATION, StartError, StopRequested
from deploy.log_file import LogFile
from deploy.processes import Child, Service

LOOK_S = 0.1
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SENTENCE = "ananse: "
"""A child's line that begins so is for the user."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses before a restart double from `first_s` to `longest_s`, anew for a child that lived `steady_s`.

    `start_tries` failures before the service as a whole was up are one too many.
    """

    first_s: float = 1.0
    longest_s: float = 30.0
    steady_s: float = 60.0
    start_tries: int = 3

    def pause_s(self, failures: int) -> float:
        """Before the start that follows the `failures`-th failure in a row."""
        return min(self.first_s * 2.0 ** min(failures - 1, 30), self.longest_s)


@dataclass(slots=True)
class _Post:
    """A service and who fills it at the moment: nobody while a restart is due."""

    service: Service
    log: LogFile | None
    child: Child | None = None
    failures: int = 0
    restart_at: float = field(default=0.0)


class Supervisor:
    """Used as a context: whatever was started inside has ended outside, and signals are as they were.

    What children write goes to files in `log_dir` if there is one, and to `show`, by name and line.
    """

    def __init__(
        self,
        log_dir: Path | None,
        *,
        say: Callable[[str], None],
        show: Callable[[str, str], None] | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self._log_dir = log_dir
        self._say = say
        self._show = show
        self._backoff = backoff or Backoff()
        self._posts: dict[str, _Post] = {}
        self._selector = selectors.DefaultSelector()
        self._stops_asked = 0
        self._settled = False
        self._former_handlers: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        for number in STOP_SIGNALS:
            self._former_handlers[number] = signal.signal(number, self._on_stop_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._selector.close()
        for number, handler in self._former_handlers.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def start(self, service: Service) -> None:
        path = self.log_path(service.name)
        post = _Post(service, LogFile(path) if path else None)
        self._posts[service.name] = post
        self._fill(post)

    def settle(self) -> None:
        """From now on a child may fail as often as it likes: it is started again."""
        self._settled = True

    def watch(self, until: Callable[[], bool]) -> None:
        """Tends the children until `until()`.

        Raises StopRequested on a signal, and StartError when a child cannot be had.
        """
        while not until():
            if self._stops_asked:
                raise StopRequested
            self._listen(LOOK_S)
            for post in self._posts.values():
                self._tend(post)

    def pid(self, name: str) -> int | None:
        child = self._posts[name].child
        return child.pid if child else None

    def log_path(self, name: str) -> Path | None:
        return self._log_dir / f"{name}.log" if self._log_dir else None

    def stop(self) -> None:
        """Ends all children, the last started first. Asked to stop a second time meanwhile, it kills."""
        while self._posts:
            crew = self._crew_of(next(reversed(self._posts.values())))
            for post in crew:
                if post.child:
                    post.child.terminate()
            for post in reversed(crew):
                self._posts.pop(post.service.name)
                if post.child:
                    self._end(post.child)
                    self._bury(post, post.child)
                if post.log:
                    post.log.close()

    def _crew_of(self, post: _Post) -> list[_Post]:
        crew = post.service.crew
        return [one for one in self._posts.values() if crew and one.service.crew == crew] or [post]

    def _tend(self, post: _Post) -> None:
        if post.child is None:
            if time.monotonic() >= post.restart_at:
                self._fill(post)
            return
        status = post.child.ended()
        if status is not None:
            self._replace(post, post.child, status)

    def _fill(self, post: _Post) -> None:
        name = post.service.name

        def hear(line: bytes) -> None:
            if post.log:
                post.log.write(line)
            if self._show:
                self._show(name, line.decode(errors="replace").rstrip())

        try:
            post.child = Child(post.service, hear)
        except OSError as error:
            # No memory or no process left: that may pass.
            self._postpone(post, f"{name} could not be started ({error.strerror})", "")
            return
        self._selector.register(post.child, selectors.EVENT_READ, post.child)

    def _replace(self, post: _Post, child: Child, status: int) -> None:
        self._bury(post, child)
        self._refuse_the_hopeless(post, child, status)
        lived_s = time.monotonic() - child.started_at
        if lived_s >= self._backoff.steady_s:
            post.failures = 0
        self._postpone(post, self._obituary(post, status), f"; its last words: {_last_words(child)}")

    def _postpone(self, post: _Post, cause: str, last_words: str) -> None:
        post.failures += 1
        if not self._settled and post.failures >= self._backoff.start_tries:
            raise StartError(cause + last_words)
        pause_s = self._backoff.pause_s(post.failures)
        post.restart_at = time.monotonic() + pause_s
        self._say(f"{cause}; starting it again in {pause_s:.0f} s")

    def _refuse_the_hopeless(self, post: _Post, child: Child, status: int) -> None:
        if status != EXIT_CONFIGURATION:
            return
        for line in reversed(child.tail):
            if line.startswith(SENTENCE):
                raise StartError(line.removeprefix(SENTENCE), EXIT_CONFIGURATION)
        raise StartError(
            f"{self._obituary(post, status)}; its last words: {_last_words(child)}", EXIT_CONFIGURATION
        )

    def _obituary(self, post: _Post, status: int) -> str:
        cause = f"exit code {status}" if status >= 0 else signal.Signals(-status).name
        path = self.log_path(post.service.name)
        return f"{post.service.name} ended ({cause}{f', see {path}' if path else ''})"

    def _bury(self, post: _Post, child: Child) -> None:
        if child.fileno() in self._selector.get_map():
            self._selector.unregister(child)
        child.bury()
        post.child = None

    def _end(self, child: Child) -> None:
        deadline = time.monotonic() + child.service.grace_s
        while child.ended() is None and time.monotonic() < deadline and self._stops_asked < 2:
            self._listen(LOOK_S / 4)
        if child.ended() is None and self._stops_asked < 2:
            self._say(
                f"{child.service.name} did not stop within {child.service.grace_s:.0f} s and was killed"
            )

    def _listen(self, timeout_s: float) -> None:
        for key, _ in self._selector.select(timeout_s):
            if not key.data.listen():
                self._selector.unregister(key.data)

    def _on_stop_signal(self, number: int, frame: FrameType | None) -> None:
        self._stops_asked += 1


def say(line: str) -> None:
    """Progress is for a person: standard output, at once. A terminal that was closed stops nothing."""
    with suppress(OSError):
        print(line, flush=True)


def complain(line: str) -> None:
    print(f"{SENTENCE}{line}", file=sys.stderr, flush=True)


def _last_words(child: Child) -> str:
    spoken = [line for line in child.tail if line.strip()]
    return spoken[-1].strip() if spoken else "none"
