"""Probes that differ: `livez` is this process, `readyz` what a submit needs. And metrics for Prometheus."""

from flask import Response
from flask_openapi.blueprint import APIBlueprint
from prometheus_client import CONTENT_TYPE_LATEST

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
    shape = ReadyOut(checks={"job_store": "ok", "file_store": "ok"}, workers=parts().fleet.count())
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
    """Of all processes of this API, and of the ledger; workers tell their own. Answers while Redis is
    away."""
    return Response(parts().metrics.text(), content_type=CONTENT_TYPE_LATEST)
