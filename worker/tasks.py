"""Celery's tasks: take the ids, bind the log, call a plain function. Nothing else happens here."""

from celery import Celery

from shared.log import bound
from worker.context import Context
from worker.steps import WORK, perform


def register(celery: Celery, context: Context) -> None:
    """One task for each kind of step, found by its name."""
    for kind in WORK:
        _register(celery, context, f"ananse.{kind}")


def _register(celery: Celery, context: Context, name: str) -> None:
    @celery.task(name=name, ignore_result=True)  # type: ignore[untyped-decorator]
    def run(job_id: str, step: str) -> None:
        with bound(job_id=job_id, step=step, worker=context.name):
            perform(job_id, step, context)
