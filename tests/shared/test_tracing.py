"""Spans as they are made, and the rule that nothing of it is there unless it is asked for."""

import subprocess
import sys
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from shared import tracing
from shared.errors import CorruptAudio
from shared.otel import OtelTracer
from shared.settings import Settings
from shared.tracing import OFF, Kind

ROOT = Path(__file__).parents[2]
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = PARENT.removesuffix("1") + "0"
ENDPOINT = "http://127.0.0.1:4318"


class HandedBack(Exception):
    pass


@pytest.fixture
def made() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracer(made: InMemorySpanExporter) -> OtelTracer:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(made))
    return OtelTracer(provider, (HandedBack,))


def test_spans_within_are_children(tracer: OtelTracer, made: InMemorySpanExporter) -> None:
    with tracer.span("step", Kind.STEP, PARENT, job_id="job_1", part=None), tracer.span("fetch"):
        pass

    fetch, step = made.get_finished_spans()
    assert step.parent is not None
    assert fetch.parent is not None
    assert f"{step.context.trace_id:032x}" == PARENT.split("-")[1]
    assert f"{step.parent.span_id:016x}" == PARENT.split("-")[2]
    assert fetch.parent.span_id == step.context.span_id
    assert step.kind is SpanKind.CONSUMER
    assert dict(step.attributes or {}) == {"ananse.job_id": "job_1"}


def test_what_goes_on_elsewhere_goes_on_from_this_span(tracer: OtelTracer) -> None:
    with tracer.span("POST", Kind.CLIENT, PARENT) as span:
        assert span.traceparent.startswith(PARENT[:36])
        assert span.traceparent != PARENT


def test_a_failure_leaves_its_code_and_no_words(tracer: OtelTracer, made: InMemorySpanExporter) -> None:
    with pytest.raises(CorruptAudio), tracer.span("fetch"):
        raise CorruptAudio("what somebody said")
    with pytest.raises(ValueError, match="somebody"), tracer.span("store"):
        raise ValueError("what somebody said")

    assert [span.status.description for span in made.get_finished_spans()] == ["corrupt_audio", "ValueError"]
    assert all(span.status.status_code is StatusCode.ERROR for span in made.get_finished_spans())
    assert "somebody" not in "".join(span.to_json() for span in made.get_finished_spans())


def test_to_be_handed_back_is_no_failure(tracer: OtelTracer, made: InMemorySpanExporter) -> None:
    with pytest.raises(HandedBack), tracer.span("part"):
        raise HandedBack

    (span,) = made.get_finished_spans()
    assert span.status.status_code is StatusCode.UNSET
    assert dict(span.attributes or {}) == {"ananse.left_by": "HandedBack"}


def test_a_walk_is_a_span_beside_others(tracer: OtelTracer, made: InMemorySpanExporter) -> None:
    with tracer.span("prepare"):
        for _ in tracer.walk("detect", tracer.walk("decode", iter("ab"))):
            with tracer.span("offer"):
                pass

    spans = {span.name: span for span in made.get_finished_spans()}
    parents = {span.parent.span_id for name, span in spans.items() if name != "prepare" and span.parent}
    assert parents == {spans["prepare"].context.span_id}
    assert set(spans) == {"prepare", "detect", "decode", "offer"}
    assert "ananse.busy_s" in (spans["decode"].attributes or {})


def test_a_walk_that_fails_says_its_code(tracer: OtelTracer, made: InMemorySpanExporter) -> None:
    def broken() -> "list[str]":
        raise CorruptAudio

    with pytest.raises(CorruptAudio):
        list(tracer.walk("decode", (broken() for _ in "a")))

    assert made.get_finished_spans()[0].status.description == "corrupt_audio"


def test_who_is_not_sampled_leaves_nothing_and_is_passed_on_so(
    tracer: OtelTracer, made: InMemorySpanExporter
) -> None:
    with tracer.span("step", Kind.STEP, UNSAMPLED) as span:
        assert span.traceparent[:35] == UNSAMPLED[:35]
        assert span.traceparent.endswith("-00")

    assert made.get_finished_spans() == ()


def test_nonsense_is_no_parent(tracer: OtelTracer, made: InMemorySpanExporter) -> None:
    with tracer.span("step", Kind.STEP, "nonsense"):
        pass

    assert made.get_finished_spans()[0].parent is None


def test_off_makes_nothing(settings: Settings) -> None:
    assert tracing.start(settings, "api") is OFF
    with OFF.span("step") as span:
        span.note(size_bytes=1)
        assert span.traceparent == ""
    walked = iter("ab")
    assert OFF.walk("decode", walked) is walked


@pytest.mark.slow
@pytest.mark.calm
@pytest.mark.parametrize("module", ["api.app", "worker.app"])
def test_off_loads_nothing(module: str) -> None:
    """redis-py looks for OpenTelemetry's metrics by itself, wherever they are installed."""
    script = f"import {module}, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert not {"shared.otel", "opentelemetry.exporter", "opentelemetry.sdk.trace"} & {*done.stdout.split()}


@pytest.mark.slow
@pytest.mark.calm
@pytest.mark.parametrize(
    "start", ["import api.gunicorn_conf", "from worker.__main__ import main; main()"], ids=["api", "worker"]
)
def test_without_the_extra_the_start_ends_with_one_sentence(start: str) -> None:
    hidden = "import sys; sys.modules['opentelemetry'] = None; "
    done = subprocess.run(
        [sys.executable, "-c", hidden + start],
        cwd=ROOT,
        env={"ANANSE_OTLP_ENDPOINT": ENDPOINT},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 78, done.stderr
    assert done.stderr.startswith("ananse: ANANSE_OTLP_ENDPOINT is set, but OpenTelemetry is not installed")
    assert done.stderr.count("\n") == 1
