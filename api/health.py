"""Probes that differ: `livez` is this process, `readyz` what a submit needs. And metrics for Prometheus."""

from flask import Response
from flask_openapi.blueprint import APIBlueprint
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.exposition import generate_latest

from api.answers import LiveOut, ReadyOut
from api.jobs import json_answer
from api.openapi import SERVICE, answers, content
from api.parts import parts
from api.schemas import NoQuery
from shared.errors import BlobUnavailable, Rebuilding, StorageFull

blueprint = APIBlueprint("health", __name__, abp_tags=[SERVICE])


@blueprint.get("/livez", summary="Is the process up", responses=answers(200, LiveOut))
def livez(query: NoQuery) -> Response:
    return json_answer(LiveOut(status="live").model_dump_json())


@blueprint.get(
    "/readyz",
    summary="Can jobs be taken in",
    responses=answers(200, ReadyOut, BlobUnavailable, StorageFull, Rebuilding),
)
def readyz(query: NoQuery) -> Response:
    """503 when the job store or the file store does not answer, or lost records are being made again. Having
    no worker is no reason: jobs wait."""
    parts().jobs.ping()
    parts().blobs.check()
    parts().rebuild.require_whole()
    shape = ReadyOut(checks={"job_store": "ok", "file_store": "ok"}, workers=len(parts().fleet.live()))
    return json_answer(shape.model_dump_json())


@blueprint.get(
    "/metrics",
    summary="Prometheus metrics",
    responses=answers(
        200,
        {
            "description": "Text format.",
            "content": content("text/plain", "process_resident_memory_bytes 4.1e+07\n"),
        },
    ),
)
def metrics(query: NoQuery) -> Response:
    """Of this process. What the whole service does is counted by the workers."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)
