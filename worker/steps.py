"""The edge of every step: claim it, do its work, and translate whatever comes of it for the ledger."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError
from contextlib import AbstractContextManager

from shared import log
from shared.blob_store import BlobMissing
from shared.errors import DependencyError, Internal, JobError, MediaMissing, NotFound, WorkerCrashed
from shared.job import Failure, Job, Status
from shared.ledger import Claim, ClaimOutcome, Fenced
from shared.log import get_logger
from shared.tracing import Kind, Span, trace_id
from worker import fetching, outbox, transcription
from worker.context import Context
from worker.leases import HandBack, Held

Work = Callable[[Held, Job, Context], None]

WORK: Mapping[str, Work] = {
    "fetch": fetching.fetch,
    "prepare": transcription.prepare,
    "part": transcription.transcribe,
    "finish": transcription.finish,
    "deliver": outbox.deliver,
}

_AGAIN_S = 2.0
_CLAIMS_BESIDE = 2
_LONGEST_S = 3_600.0
_DEPENDENCY_S = 5.0

PEACEFUL = (HandBack, CancelledError, Fenced)
"""Leave a step undone through nobody's fault."""

_log = get_logger()


def perform(job_id: str, step: str, context: Context) -> None:
    """Does one step if it is still to be done. Never raises: what goes wrong is in the ledger and the log."""
    context.leases.fetched += 1
    if not step.startswith("deliver") and not context.leases.is_draining:
        context.leases.wait_for_company()
    try:
        if context.leases.is_draining:
            _hand_on(job_id, step, context)
            return
        most = _most_claims(step, context)
        claim = context.ledger.claim(job_id, step, context.name, most, min(most, _CLAIMS_BESIDE))
        if claim.outcome is not ClaimOutcome.SUSPECT:
            _begin(claim, context)
            return
        # It may be what workers die of: nobody else is to be around, and counted, when it happens again.
        with context.leases.alone() as is_alone:
            if is_alone:
                _begin(context.ledger.claim(job_id, step, context.name, most), context, is_alone=True)
            else:
                _hand_on(job_id, step, context)
    except DependencyError as error:
        # Not even the handing back went through: the lease lapses and the sweeper sees to it.
        context.metrics.step(step, "left", error.code)
        _log.warning("step_left_to_sweeper", code=error.code)
    except Fenced as error:
        context.metrics.step(step, "fenced", error.reason)
        _log.info("step_fenced", reason=error.reason)
    except Exception:
        context.metrics.step(step, "left", Internal.code)
        _log.exception("step_left_to_sweeper")


def _hand_on(job_id: str, step: str, context: Context) -> None:
    """This worker has asked for a message whose step it is not to take: another is told at once."""
    queue = context.ledger.return_hint(job_id, step)
    if queue is not None:
        context.dispatcher.dispatch([queue])


def _begin(claim: Claim, context: Context, is_alone: bool = False) -> None:
    if not claim.is_held:
        context.metrics.step(claim.step, "not_claimed", claim.outcome)
        log.add(request_id=context.jobs.request_of(claim.job_id))
        _log.info("step_not_claimed", outcome=claim.outcome)
        return
    context.metrics.claimed(claim)
    log.add(attempt=claim.attempt)
    with context.leases.hold(claim, is_alone) as held:
        _do(held, context)
    # What ended made room in a queue of this worker's, or offered the next step to one.
    context.dispatcher.dispatch(context.slots)


def _do(held: Held, context: Context) -> None:
    claim = held.claim
    try:
        job = context.jobs.get(claim.job_id)
        log.add(request_id=job.request_id, trace_id=trace_id(job.traceparent))
        held.carried = log.carried()
        _log.info("step_claimed", waited_s=claim.waited_s)
        if claim.outcome is ClaimOutcome.EXHAUSTED:
            _fail(claim, job, WorkerCrashed(), context)
            return
        # Somebody may have begun to wait for this worker to be empty while this was being claimed.
        held.check()
        began = time.monotonic()
        with _span(claim, job, context):
            WORK[claim.step.split("-", 1)[0]](held, job, context)
        context.metrics.done(claim.step, time.monotonic() - began)
        _log.info("step_done")
    except NotFound:
        context.metrics.step(claim.step, "dropped", NotFound.code)
        _log.info("step_of_deleted_job")
    except (HandBack, CancelledError) as reason:
        context.ledger.release(claim)
        context.metrics.step(claim.step, "handed_back", type(reason).__name__.lower())
        _log.info("step_handed_back", reason=type(reason).__name__)
    except JobError as error:
        _fail_or_try_again(claim, job, error, context)
    except BlobMissing:
        _fail_or_try_again(claim, job, MediaMissing(), context)
    except DependencyError as error:
        context.ledger.release(claim, error.retry_after_s or _DEPENDENCY_S)
        context.metrics.step(claim.step, "put_off", error.code)
        _log.warning("step_put_off", code=error.code)
    except Fenced:
        raise
    except Exception:
        _log.exception("step_failed")
        _fail_or_try_again(claim, job, Internal(), context)


def _fail_or_try_again(claim: Claim, job: Job, error: JobError, context: Context) -> None:
    if claim.step.startswith("deliver"):
        # The job has ended as it has; only its receiver waits, and ever more patiently.
        context.ledger.try_again(claim, min(_AGAIN_S * 2**claim.claims, _LONGEST_S))
        context.metrics.step(claim.step, "tried_again", error.code)
    elif claim.failures + 1 < error.tries:
        context.ledger.try_again(claim, max(_AGAIN_S, error.retry_after_s or 0.0))
        context.metrics.step(claim.step, "tried_again", error.code)
        _log.warning("step_tried_again", code=error.code, failures=claim.failures + 1)
    else:
        _fail(claim, job, error, context)


def _fail(claim: Claim, job: Job, error: JobError, context: Context) -> None:
    failure = Failure(error.code, error.detail, error.retryable)
    context.endings.end(claim, job, Status.FAILED, {}, failure)
    context.metrics.step(claim.step, "failed", error.code)


def _span(claim: Claim, job: Job, context: Context) -> AbstractContextManager[Span]:
    """Each attempt has its own, beside the others, under the request that made the job."""
    kind, _, number = claim.step.partition("-")
    return context.tracer.span(
        kind,
        Kind.STEP,
        job.traceparent,
        job_id=job.id,
        request_id=job.request_id or None,
        step=claim.step,
        part=int(number) if kind == "part" else None,
        attempt=claim.attempt,
        worker=context.name,
        waited_s=claim.waited_s,
    )


def _most_claims(step: str, context: Context) -> int:
    """A delivery ends by its own schedule, everything else after so many beginnings."""
    return 0 if step.startswith("deliver") else context.settings.max_claims
