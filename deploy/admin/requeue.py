"""`ananse admin requeue`: takes steps back at once, without waiting for a lease or a pause to be over."""

import argparse

from deploy.admin.desk import Desk
from deploy.errors import StartError
from shared.job import Job
from shared.ledger import Hint, Requeued, RequeueOutcome
from shared.settings import Settings
from shared.survey import Place

_STUCK = (Place.HELD, Place.SENT, Place.PUT_OFF, Place.NOWHERE)
_SENTENCES = {
    RequeueOutcome.REQUEUED: "back in line; whoever held it is refused from now on",
    RequeueOutcome.WAITING: "waits in line already",
    RequeueOutcome.OTHER: "has left that worker in the meantime",
    RequeueOutcome.DONE: "is done",
    RequeueOutcome.ENDED: "its job has ended",
    RequeueOutcome.GONE: "there is no such step",
    RequeueOutcome.NEWER: "its record is of a later version of the service",
}


def add_to(acts: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = acts.add_parser(
        "requeue",
        help="take steps back from a worker at once",
        description="Without STEP all steps of the job that are held, put off, or sent and not taken. "
        "Windows that were finished stay finished. A beginning counts, as after a lapsed lease: after "
        "ANANSE_MAX_CLAIMS of them without progress the job fails.",
    )
    parser.add_argument("job", nargs="?", metavar="ID")
    parser.add_argument("step", nargs="?", metavar="STEP", help="prepare, part-N, finish or deliver-N")
    parser.add_argument("--worker", help="all steps that this worker holds, dead or alive")
    parser.add_argument("--retry", action="store_true", help="for a job that has ended: a new job from it")
    parser.set_defaults(act=run)


def run(arguments: argparse.Namespace, desk: Desk) -> int:
    if (arguments.job is None) == (arguments.worker is None) or (arguments.retry and arguments.worker):
        raise StartError("name a job, or a worker with --worker")
    if arguments.worker is not None:
        return _requeue_all_of(arguments.worker, desk)
    job = desk.jobs.get(arguments.job)
    if arguments.retry:
        return _retry(job, desk)
    if arguments.step is not None:
        return _requeue(desk, (Hint(job.id, arguments.step),))
    if job.status.is_terminal:
        again = f"`ananse admin requeue {job.id} --retry` makes a new job of it"
        raise StartError(f"{job.id} has ended as {job.status}; {again}")
    stuck = [step.step for step in desk.survey.steps(job.id) if step.place in _STUCK]
    return _requeue(desk, tuple(Hint(job.id, step) for step in stuck))


def _requeue_all_of(worker: str, desk: Desk) -> int:
    status = _requeue(desk, desk.survey.held_by(worker), worker)
    # It may have fetched messages, too, before it died, which nobody else will get.
    returned = {desk.ledger.return_hint(hint.job_id, hint.step) for hint in desk.survey.sent()}
    desk.dispatcher().dispatch({queue for queue in returned if queue})
    return status


def _requeue(desk: Desk, steps: tuple[Hint, ...], worker: str = "") -> int:
    if not steps:
        print("nothing to take back")
        return 0
    done = [desk.ledger.requeue(step.job_id, step.step, worker) for step in steps]
    for step, one in zip(steps, done, strict=True):
        print(f"{step.job_id} {step.step}: {_SENTENCES[one.outcome]}")
    desk.dispatcher().dispatch({one.queue for one in done if one.outcome is RequeueOutcome.REQUEUED})
    return 0 if any(_is_well(one) for one in done) else 1


def _is_well(one: Requeued) -> bool:
    return one.outcome in (RequeueOutcome.REQUEUED, RequeueOutcome.WAITING, RequeueOutcome.OTHER)


def _retry(job: Job, desk: Desk) -> int:
    """As POST /v1/jobs/{id}/retry does it."""
    print(f"{job.id} is tried again as {_resubmitted(job, desk.settings).id}")
    return 0


def _resubmitted(job: Job, settings: Settings) -> Job:
    try:
        # The image of the workers holds no API, and everything else is to work there.
        from api.app import create_app  # noqa: PLC0415
        from api.auth import ANYBODY  # noqa: PLC0415
        from api.parts import EXTENSION  # noqa: PLC0415
        from api.submissions import resubmit  # noqa: PLC0415
    except ImportError as error:
        raise StartError("the API is not installed here; run --retry beside it") from error
    app = create_app(settings.model_copy(update={"log_level": "WARNING"}))
    return resubmit(app.extensions[EXTENSION], ANYBODY, job, "")
