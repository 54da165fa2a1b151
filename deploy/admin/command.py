"""`ananse admin …`: one module for each act, all with the same desk to work at."""

import argparse
from collections.abc import Callable
from contextlib import closing

from deploy.admin import cancel, drain, jobs, pausing, queues, requeue, workers
from deploy.admin.desk import Desk, open_desk
from deploy.errors import StartError
from shared import log
from shared.errors import ServiceError
from shared.settings import load

ACTS = (queues, workers, jobs, drain, requeue, pausing, cancel)


def add_to(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "admin",
        help="look at queues, workers and jobs; drain, requeue, pause",
        description="Needs nothing but the settings of the service (ANANSE_REDIS_URL). See docs/admin.md. "
        "Exit code: 0 done, 1 it could not be done, 2 wrong usage, 3 not done in the time given.",
    )
    acts = parser.add_subparsers(metavar="ACT", required=True)
    for act in ACTS:
        act.add_to(acts)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Raises StartError, in one sentence, for all that keeps it from being done."""
    log.configure("WARNING")
    act: Callable[[argparse.Namespace, Desk], int] = arguments.act
    with closing(open_desk(load())) as desk:
        try:
            return act(arguments, desk)
        except ServiceError as error:
            raise StartError(error.detail) from error
