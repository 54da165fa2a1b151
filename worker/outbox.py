"""Step 10, `deliver`: hands the frozen body of an ended job to its receiver, now or later."""

import random
from datetime import datetime

from shared.job import Delivery, Job
from shared.log import get_logger
from shared.tracing import Kind
from worker.context import Context
from worker.delivery import Outcome, next_delay_s, post
from worker.leases import Held

_log = get_logger()


def deliver(held: Held, job: Job, context: Context) -> None:
    """One attempt; what becomes of it is in the delivery log and decides about the next one."""
    claim = held.claim
    disable_s = context.settings.webhook_disable_s
    number = context.ledger.attempts(job.id) + 1
    if context.receivers.is_disabled(claim):
        unasked = Delivery(number, context.jobs.now(), None, 0.0, "disabled")
        context.ledger.delivered(claim, unasked, "disabled")
        context.endings.save(job.id)
        context.metrics.webhook("disabled", 0.0)
        _log.warning("webhook_disabled", delivery=number)
        return
    attempt = context.ledger.tries(claim) + 1
    # Not this machine's clock: receivers refuse a signature that is minutes off.
    at = context.jobs.now()
    with context.tracer.span("POST", Kind.CLIENT, http_method="POST", delivery=number) as span:
        outcome = post(
            context.sender,
            webhook_id=f"msg_{job.id}_{claim.step}",
            body=claim.body.encode(),
            url=job.options.webhook_url or "",
            secrets=context.webhook_secrets(),
            auth_header=_auth_header(job),
            now=at,
            traceparent=span.traceparent,
        )
        span.note(http_status=outcome.status)
        if not outcome.delivered:
            span.fail(outcome.error or str(outcome.status))
    delivery = _delivery(number, at, outcome)
    delay_s = next_delay_s(attempt, context.settings.webhook_retry_s, outcome, random.random)
    if delay_s is not None and context.ledger.redeliver(claim, delivery, delay_s, disable_s):
        context.metrics.webhook("put_off", outcome.duration_s)
        _log.info(
            "webhook_put_off",
            delivery=number,
            status=outcome.status,
            error=outcome.error,
            delay_s=round(delay_s, 3),
        )
        return
    if delay_s is None:
        context.ledger.delivered(claim, delivery, _word(outcome), disable_s)
    context.endings.save(job.id)
    context.metrics.webhook("delivered" if outcome.delivered else "failed", outcome.duration_s)
    if outcome.delivered:
        _log.info("webhook_delivered", delivery=number, status=outcome.status)
    else:
        _log.warning("webhook_failed", delivery=number, status=outcome.status, error=outcome.error)


def _word(outcome: Outcome) -> str:
    if outcome.delivered:
        return "delivered"
    return "gone" if outcome.gone else "failed"


def _auth_header(job: Job) -> tuple[str, str] | None:
    name, value = job.options.webhook_auth_header_name, job.options.webhook_auth_header_value
    return (name, value) if name and value else None


def _delivery(attempt: int, at: datetime, outcome: Outcome) -> Delivery:
    return Delivery(attempt, at, outcome.status, round(outcome.duration_s, 3), outcome.error, outcome.answer)
