"""The bytes a receiver is sent when a job ends: made once, at the transition, and never again."""

import json
from datetime import UTC, datetime

from shared.job import Failure, Job, Status


def webhook_body(
    job: Job, status: Status, failure: Failure | None = None, public_url: str | None = None
) -> bytes | None:
    """Thin on purpose: what ended and where to read it, no transcript. None when nobody wants to know."""
    if not job.options.webhook_url:
        return None
    path = f"/v1/jobs/{job.id}"
    event = {
        "type": f"job.{status}",
        "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "data": {
            "id": job.id,
            "status": status,
            "error": {"code": failure.code, "detail": failure.detail, "retryable": failure.retryable}
            if failure
            else None,
            "metadata": job.options.metadata,
            "links": {
                "self": (public_url or "").rstrip("/") + path,
                "transcript": (public_url or "").rstrip("/") + path + "/transcript",
            },
        },
    }
    return json.dumps(event, separators=(",", ":")).encode()
