"""Step 10, `deliver`: hands the frozen body of an ended job to its receiver, now or later."""

import random
from datetime import datetime

from shared.job import Delivery, Job
from shared.log import get_logger
from worker.context import Context
from worker.delivery import Outcome, next_delay_s, post
from worker.leases import Held

_log = get_logger()


def deliver(held: Held, job: Job, context: Context) -> None:
    """One attempt; what becomes of it is in the delivery log and decides about the next one."""
    claim = held.claim
    attempt = context.ledger.tries(claim) + 1
    # Not this machine's clock: receivers refuse a signature that is minutes off.
    at = context.jobs.now()
    outcome = post(
        context.sender,
        webhook_id=f"msg_{job.id}_{claim.step}",
        body=claim.body.encode(),
        url=job.options.webhook_url or "",
        secrets=context.webhook_secrets,
        auth_header=_auth_header(job),
        now=at,
    )
    delivery = _delivery(attempt, at, outcome)
    delay_s = next_delay_s(attempt, context.settings.webhook_retry_s, outcome, random.random)
    if outcome.delivered or delay_s is None:
        status = "delivered" if outcome.delivered else "failed"
        context.ledger.delivered(claim, delivery, status)
        context.endings.save(job.id)
        context.metrics.webhook(status, outcome.duration_s)
        _log.info("webhook_" + status, status=outcome.status, attempt=attempt)
    else:
        context.ledger.redeliver(claim, delivery, delay_s)
        context.metrics.webhook("put_off", outcome.duration_s)
        _log.info("webhook_put_off", status=outcome.status, error=outcome.error, delay_s=delay_s)


def _auth_header(job: Job) -> tuple[str, str] | None:
    name, value = job.options.webhook_auth_header_name, job.options.webhook_auth_header_value
    return (name, value) if name and value else None


def _delivery(attempt: int, at: datetime, outcome: Outcome) -> Delivery:
    return Delivery(attempt, at, outcome.status, round(outcome.duration_s, 3), outcome.error, outcome.answer)
