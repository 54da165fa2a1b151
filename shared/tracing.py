"""Traces: what a job's time was spent on, from upload to webhook. Off unless `ANANSE_OTLP_ENDPOINT` is set;
then `otel.py` is loaded, and with it OpenTelemetry. See docs/logs.md and docs/adr/0015."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum
from importlib.util import find_spec
from typing import Protocol, TypeVar

from shared.settings import Settings, SettingsError

T = TypeVar("T")
Value = str | int | float | bool


class Kind(StrEnum):
    """Whether a span is about work in here, a request that came, one that goes out, or a step of a job."""

    INTERNAL = "internal"
    SERVER = "server"
    CLIENT = "client"
    STEP = "step"


class Span(Protocol):
    """A stretch of time with a name. Attributes are ids, numbers and codes: nothing that anybody sent."""

    @property
    def traceparent(self) -> str:
        """The W3C header that lets another process go on; empty when there is no trace."""
        ...

    def note(self, **attributes: Value | None) -> None: ...

    def event(self, name: str, **attributes: Value | None) -> None: ...

    def fail(self, code: str) -> None:
        """It came to nothing, for this reason."""
        ...

    def inside(self) -> AbstractContextManager[None]:
        """Spans that are begun in this thread meanwhile are its children."""
        ...

    def end(self, name: str | None = None) -> None:
        """`name` is what it turned out to be."""
        ...


class Tracer(Protocol):
    """Makes spans. Nothing it does may fail or hold up what it looks at."""

    def begin(
        self, name: str, kind: Kind = Kind.INTERNAL, parent: str = "", **attributes: Value | None
    ) -> Span:
        """To be ended by the caller. `parent` is a `traceparent`; without one it is what is around it."""
        ...

    def span(
        self, name: str, kind: Kind = Kind.INTERNAL, parent: str = "", **attributes: Value | None
    ) -> AbstractContextManager[Span]:
        """A span as long as the block; an exception fails it with its code."""
        ...

    def walk(self, name: str, things: Iterator[T]) -> Iterator[T]:
        """Gives `things` on, in a span as long as that goes. `busy_s` is the time that was spent in them,
        not with who walks."""
        ...

    def close(self) -> None:
        """Sends what is left, for a few seconds at most."""
        ...


class NoSpan:
    """Nobody looks."""

    traceparent = ""

    def note(self, **attributes: Value | None) -> None:
        pass

    def event(self, name: str, **attributes: Value | None) -> None:
        pass

    def fail(self, code: str) -> None:
        pass

    def inside(self) -> AbstractContextManager[None]:
        return nullcontext()

    def end(self, name: str | None = None) -> None:
        pass


class NoTracer:
    """Makes no spans."""

    def begin(
        self, name: str, kind: Kind = Kind.INTERNAL, parent: str = "", **attributes: Value | None
    ) -> Span:
        return NO_SPAN

    def span(
        self, name: str, kind: Kind = Kind.INTERNAL, parent: str = "", **attributes: Value | None
    ) -> AbstractContextManager[Span]:
        return nullcontext(NO_SPAN)

    def walk(self, name: str, things: Iterator[T]) -> Iterator[T]:
        return things

    def close(self) -> None:
        pass


NO_SPAN = NoSpan()
OFF = NoTracer()


def trace_id(traceparent: str) -> str:
    """Empty when there is no trace."""
    return traceparent[3:35]


def require(settings: Settings) -> None:
    """Raises SettingsError when traces are asked for and cannot be had; loads nothing."""
    if settings.otlp_endpoint is None:
        return
    try:
        is_there = find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ModuleNotFoundError:
        is_there = False
    if not is_there:
        raise SettingsError(
            "ANANSE_OTLP_ENDPOINT is set, but OpenTelemetry is not installed: "
            "pip install 'ananse[tracing]', or leave the setting out"
        )


def start(settings: Settings, service: str, peaceful: tuple[type[BaseException], ...] = ()) -> Tracer:
    """The tracer of this process, which calls itself `service`. To be called after the last fork: it has a
    thread. Exceptions that are `peaceful` fail no span. Raises SettingsError.
    """
    if settings.otlp_endpoint is None:
        return OFF
    require(settings)
    # Heavy, and an extra: only for who asked for it.
    from shared import otel  # noqa: PLC0415

    return otel.OtelTracer(otel.provider(settings.otlp_endpoint, service), peaceful)
