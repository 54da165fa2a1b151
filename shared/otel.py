"""Traces by OpenTelemetry's SDK, sent by OTLP over HTTP. Loaded by `tracing.start` only.

Its own environment variables (`OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_TRACES_SAMPLER`, `OTEL_BSP_*`, …) are heard
by the SDK; whether and where to is our setting's to say.
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from shared.errors import ServiceError
from shared.log import get_logger
from shared.tracing import Kind, Span, Value

T = TypeVar("T")

FLUSH_S = 3.0
_COMPLAIN_EVERY_S = 60.0
_PATH = "/v1/traces"
_KINDS = {
    Kind.INTERNAL: SpanKind.INTERNAL,
    Kind.SERVER: SpanKind.SERVER,
    Kind.CLIENT: SpanKind.CLIENT,
    Kind.STEP: SpanKind.CONSUMER,
}

_SEMANTIC = {
    "http_method": "http.request.method",
    "http_route": "http.route",
    "http_status": "http.response.status_code",
}
"""Attributes that OpenTelemetry has names for; all others are `ananse.…`."""

_log = get_logger()
_header = TraceContextTextMapPropagator()


def provider(endpoint: str, service: str) -> TracerProvider:
    """Spans wait in a bounded queue for one thread that sends them; the oldest go when it is full."""
    # What it says of each failed attempt is said once in a while by `Complaining`.
    logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)
    url = endpoint.rstrip("/")
    exporter = OTLPSpanExporter(url if url.endswith(_PATH) else url + _PATH)
    # Its own goodbye at exit would wait for half a minute.
    made = TracerProvider(resource=_resource(service), shutdown_on_exit=False)
    made.add_span_processor(BatchSpanProcessor(Complaining(exporter)))
    return made


class Complaining(SpanExporter):
    """Sends spans; those that are lost are one line a minute, not one for each attempt."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._lost = 0
        self._silent_until = 0.0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        if result is not SpanExportResult.SUCCESS:
            self._lost += len(spans)
            self._complain()
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)

    def _complain(self) -> None:
        now = time.monotonic()
        if now >= self._silent_until:
            _log.warning("spans_lost", spans=self._lost)
            self._lost, self._silent_until = 0, now + _COMPLAIN_EVERY_S


class OtelSpan:
    def __init__(self, span: trace.Span) -> None:
        self._span = span

    @property
    def traceparent(self) -> str:
        carrier: dict[str, str] = {}
        _header.inject(carrier, trace.set_span_in_context(self._span, Context()))
        return carrier.get("traceparent", "")

    def note(self, **attributes: Value | None) -> None:
        self._span.set_attributes(_named(attributes))

    def event(self, name: str, **attributes: Value | None) -> None:
        self._span.add_event(name, _named(attributes))

    def fail(self, code: str) -> None:
        self._span.set_status(StatusCode.ERROR, code)
        self._span.set_attribute("error.type", code)

    @contextmanager
    def inside(self) -> Iterator[None]:
        with trace.use_span(
            self._span, end_on_exit=False, record_exception=False, set_status_on_exception=False
        ):
            yield

    def end(self, name: str | None = None) -> None:
        if name is not None:
            self._span.update_name(name)
        self._span.end()


class OtelTracer:
    def __init__(self, provider: TracerProvider, peaceful: tuple[type[BaseException], ...] = ()) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("ananse")
        self._peaceful = peaceful

    def begin(
        self, name: str, kind: Kind = Kind.INTERNAL, parent: str = "", **attributes: Value | None
    ) -> Span:
        context = _header.extract({"traceparent": parent}, Context()) if parent else None
        return OtelSpan(
            self._tracer.start_span(name, context, kind=_KINDS[kind], attributes=_named(attributes))
        )

    @contextmanager
    def span(
        self, name: str, kind: Kind = Kind.INTERNAL, parent: str = "", **attributes: Value | None
    ) -> Iterator[Span]:
        span = self.begin(name, kind, parent, **attributes)
        try:
            with span.inside():
                yield span
        except self._peaceful as reason:
            span.note(left_by=type(reason).__name__)
            raise
        except Exception as error:
            # The code, never the message: that may repeat what was sent.
            span.fail(error.code if isinstance(error, ServiceError) else type(error).__name__)
            raise
        finally:
            span.end()

    def walk(self, name: str, things: Iterator[T]) -> Iterator[T]:
        return _walk(self.begin(name), things)

    def close(self) -> None:
        """The SDK's own way out waits for as long as the collector likes; it is left behind."""
        leaving = threading.Thread(target=self._provider.shutdown, name="last-spans", daemon=True)
        leaving.start()
        leaving.join(FLUSH_S)


def _walk(span: Span, things: Iterator[T]) -> Iterator[T]:
    busy_s = 0.0
    try:
        while True:
            began = time.perf_counter()
            try:
                thing = next(things)
            except StopIteration:
                return
            finally:
                busy_s += time.perf_counter() - began
            yield thing
    except ServiceError as error:
        span.fail(error.code)
        raise
    finally:
        span.note(busy_s=round(busy_s, 6))
        span.end()


def _named(attributes: Mapping[str, Value | None]) -> dict[str, Value]:
    given = {name: value for name, value in attributes.items() if value is not None}
    return {_SEMANTIC.get(name, f"ananse.{name}"): value for name, value in given.items()}


def _resource(service: str) -> Resource:
    """The operator's own words (`OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`) come first."""
    instance = f"{socket.gethostname()}-{os.getpid()}"
    ours = {"service.name": f"ananse-{service}", "service.instance.id": instance}
    return Resource.create({**ours, **OTELResourceDetector().detect().attributes})
