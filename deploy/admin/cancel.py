"""`ananse admin cancel`: as the API's cancel, for jobs of any client."""

import argparse

from deploy.admin.desk import Desk
from shared.errors import NotFound
from shared.job import Status


def add_to(acts: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = acts.add_parser("cancel", help="end jobs as canceled")
    parser.add_argument("jobs", nargs="+", metavar="ID")
    parser.set_defaults(act=run)


def run(arguments: argparse.Namespace, desk: Desk) -> int:
    endings = desk.endings()
    missing = 0
    for job_id in arguments.jobs:
        try:
            job = desk.jobs.get(job_id)
        except NotFound:
            missing += 1
            print(f"{job_id}: there is no such job")
            continue
        if endings.close(job, Status.CANCELED):
            print(f"{job_id}: canceled")
        else:
            print(f"{job_id}: had ended as {desk.jobs.get(job_id).status}")
    return 1 if missing else 0
