"""One trace from upload to webhook, as a collector receives it; and a service that no collector can hurt."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path

import httpx
import pytest

from shared.fleet import Fleet
from shared.job import Status
from shared.job_store import JobStore
from shared.otel import FLUSH_S
from shared.redis_store import RedisStore
from shared.settings import Settings
from tests.support import secrets
from tests.support.api_server import ApiServer, api_server
from tests.support.collector import Collector, Received, collector
from tests.support.waiting import wait_until
from tests.support.worker_context import SECRET
from tests.support.worker_process import PLAIN, WorkerProcess, worker_process
from tests.worker.receiver import Receiver, http, receiver

pytestmark = [pytest.mark.redis, pytest.mark.service, pytest.mark.slow]

PATIENCE_S = 60.0
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE_ID}-{CALLER}-01"
SOON = {"OTEL_BSP_SCHEDULE_DELAY": "100"}

TREE = {
    "POST /v1/jobs": {"receive", "create", "submit", "prepare", "part", "finish", "deliver"},
    "prepare": {"fetch", "probe", "decode", "detect", "offer"},
    "part": {"fetch", "run", "store"},
    "finish": {"assemble", "store"},
    "deliver": {"POST"},
}
STEPS = ("prepare", "part", "finish", "deliver")


@dataclass(frozen=True)
class Running:
    """The whole service, with a client."""

    server: ApiServer
    worker: WorkerProcess
    jobs: JobStore
    caller: httpx.Client

    def finish(self, job_id: str) -> None:
        wait_until(lambda: self.jobs.get(job_id).webhook_status == "delivered", PATIENCE_S)
        assert self.jobs.get(job_id).status is Status.COMPLETED


@contextmanager
def running(settings: Settings, store: RedisStore, log: Path, **more: object) -> Iterator[Running]:
    given = settings.model_dump(exclude_unset=True) | more
    for_worker = given | {
        "webhook_allow": (ip_network("127.0.0.0/8"),),
        "webhook_retry_s": (0.1,),
        "webhook_secret": SECRET,
        "sweep_s": 0.2,
        "part_s": 30,
    }
    fleet = Fleet(store)
    with (
        worker_process(Settings(**for_worker), fleet, log, PLAIN, **SOON) as worker,
        api_server(Settings(**given), **SOON) as server,
        httpx.Client(base_url=server.url, timeout=PATIENCE_S) as caller,
    ):
        yield Running(server, worker, JobStore(store), caller)


def children(spans: list[Received], parent: Received) -> list[Received]:
    return [span for span in spans if span.parent_id == parent.span_id]


def headers_of(hook: Receiver, number: int) -> dict[str, str]:
    head = hook.requests[number].partition(b"\r\n\r\n")[0].decode()
    return dict(line.split(": ", 1) for line in head.lower().split("\r\n")[1:])


def test_one_trace_from_upload_to_webhook(settings: Settings, store: RedisStore, tmp_path: Path) -> None:
    with (
        collector() as taken,
        receiver(http(500), http(200)) as hook,
        running(settings, store, tmp_path / "w.log", otlp_endpoint=taken.url) as service,
    ):
        job = secrets.submit(service.caller, hook.url(path=""), traceparent=TRACEPARENT)
        service.finish(job["id"])
        service.caller.get("/livez")
        assert service.worker.stop() == 0

    spans = taken.of(TRACE_ID)
    (root,) = taken.named(TRACE_ID, "POST /v1/jobs")
    assert (root.service, root.kind, root.parent_id) == ("ananse-api", "server", CALLER)
    check_tree(spans, root)
    check_times(spans, root)
    check_attributes(taken, job["id"])
    check_webhooks(taken, hook)
    check_silence(taken)
    # Who asks whether all is well leaves no traces.
    assert {span.name for span in taken.spans} <= {*TREE, *set().union(*TREE.values())}


def check_tree(spans: list[Received], root: Received) -> None:
    """Each span hangs where it belongs, and there is no other."""
    assert len({span.span_id for span in spans}) == len(spans)
    seen = 1
    for parent in [root, *children(spans, root)]:
        below = children(spans, parent)
        seen += len(below)
        assert {span.name for span in below} == TREE.get(parent.name, set()), parent.name
    assert seen == len(spans)
    assert {span.service for span in spans if span.name in STEPS} == {"ananse-worker"}


def check_times(spans: list[Received], root: Received) -> None:
    for span in spans:
        assert span.start <= span.end
        for child in children(spans, span):
            assert span.start <= child.start, (span.name, child.name)
            # Steps are begun once the request is answered.
            assert child.name in STEPS or child.end <= span.end, (span.name, child.name)
    order = [next(span for span in spans if span.name == name) for name in ("create", *STEPS)]
    assert order == sorted(order, key=lambda span: span.start)


def check_attributes(taken: Collector, job_id: str) -> None:
    steps = [span for name in STEPS for span in taken.named(TRACE_ID, name)]
    for span in steps:
        assert span.kind == "consumer"
        assert span.attributes["ananse.job_id"] == job_id
        assert span.attributes["ananse.attempt"] >= 1
        assert span.attributes["ananse.waited_s"] >= 0
    assert {span.attributes["ananse.step"] for span in steps} == {"prepare", "part-0", "finish", "deliver-0"}
    (root,) = taken.named(TRACE_ID, "POST /v1/jobs")
    assert root.attributes["http.route"] == "/v1/jobs"
    assert root.attributes["http.response.status_code"] == 202
    assert root.attributes["ananse.job_id"] == job_id
    (run,) = taken.named(TRACE_ID, "run")
    assert run.attributes["ananse.audio_s"] == pytest.approx(12, abs=0.1)
    assert run.events == ("window",) * run.attributes["ananse.windows"]
    assert run.attributes["ananse.batches"] >= 1
    (decode,) = taken.named(TRACE_ID, "decode")
    assert 0 < decode.attributes["ananse.busy_s"] <= (decode.end - decode.start) / 1e9


def check_webhooks(taken: Collector, hook: Receiver) -> None:
    """Two attempts, two spans; each request carries its own."""
    posts = sorted(taken.named(TRACE_ID, "POST"), key=lambda span: span.start)
    assert [post.error for post in posts] == ["500", None]
    assert [post.attributes["http.response.status_code"] for post in posts] == [500, 200]
    assert [post.kind for post in posts] == ["client", "client"]
    carried = [headers_of(hook, number)["traceparent"] for number in range(2)]
    assert carried == [f"00-{TRACE_ID}-{post.span_id}-01" for post in posts]


def check_silence(taken: Collector) -> None:
    for marker in secrets.MARKERS:
        assert not [body for body in taken.raw if marker.encode() in body], marker


def test_a_job_that_fails_says_its_code(settings: Settings, store: RedisStore, tmp_path: Path) -> None:
    with collector() as taken:
        with running(settings, store, tmp_path / "w.log", otlp_endpoint=taken.url) as service:
            answer = service.caller.post(
                "/v1/jobs", content=b"no sound at all", headers={"traceparent": TRACEPARENT}
            )
            job_id = answer.json()["id"]
            wait_until(lambda: service.jobs.get(job_id).status.is_terminal, PATIENCE_S)
            assert service.worker.stop() == 0
        code = service.jobs.get(job_id).failure

    assert code is not None
    (prepare,) = taken.named(TRACE_ID, "prepare")
    (probe,) = taken.named(TRACE_ID, "probe")
    assert (prepare.error, probe.error) == (code.code, code.code)


def test_a_record_made_again_keeps_its_trace(settings: Settings, store: RedisStore, tmp_path: Path) -> None:
    """Redis forgets all between upload and work."""
    with collector() as taken:
        given = settings.model_dump(exclude_unset=True) | {"otlp_endpoint": taken.url}
        with api_server(Settings(**given), **SOON) as server:
            headers = {"traceparent": TRACEPARENT, "content-type": "audio/wav"}
            answer = httpx.post(
                server.url + "/v1/jobs?vad=off", content=secrets.noise(), headers=headers, timeout=PATIENCE_S
            )
        store.client.flushdb()
        with worker_process(Settings(**given, sweep_s=0.2), Fleet(store), tmp_path / "w", PLAIN) as worker:
            jobs = JobStore(store)
            wait_until(
                lambda: (
                    store.client.exists(store.key("job", answer.json()["id"]))
                    and jobs.get(answer.json()["id"]).status is Status.COMPLETED
                ),
                PATIENCE_S,
            )
            assert worker.stop() == 0

    (root,) = taken.named(TRACE_ID, "POST /v1/jobs")
    (finish,) = taken.named(TRACE_ID, "finish")
    assert finish.parent_id == root.span_id


@pytest.mark.parametrize("collector_is", ["away", "hanging"])
def test_a_bad_collector_harms_nobody(
    settings: Settings, store: RedisStore, tmp_path: Path, collector_is: str
) -> None:
    never = threading.Event()
    with collector(lambda: never.wait(PATIENCE_S)) as taken, receiver(http(200)) as hook:
        endpoint = taken.url if collector_is == "hanging" else "http://127.0.0.1:1"
        with running(settings, store, tmp_path / "w.log", otlp_endpoint=endpoint) as service:
            job = secrets.submit(service.caller, hook.url(path=""), traceparent=TRACEPARENT)
            service.finish(job["id"])
            began = time.monotonic()
            assert service.worker.stop() == 0
            worker_s = time.monotonic() - began
            began = time.monotonic()
        api_s = time.monotonic() - began
        never.set()

    assert taken.spans == [] or collector_is == "hanging"
    assert max(worker_s, api_s) < FLUSH_S + 10
