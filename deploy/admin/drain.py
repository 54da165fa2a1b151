"""`ananse admin drain` and `undrain`: a worker takes nothing more, hands back what it holds, and lives on."""

import argparse
import time

from deploy.admin.desk import Desk
from deploy.errors import StartError
from deploy.supervisor import complain
from shared.fleet import WorkerState

EXIT_LATE = 3
_LOOK_S = 0.2


def add_to(acts: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = acts.add_parser(
        "drain",
        help="let workers take nothing more and hand back what they hold",
        description="A drained worker lives on, so that nothing starts it again, and works again after "
        "`undrain`. A worker that is started anew is not drained.",
    )
    _add_choice(parser)
    parser.add_argument("--wait", action="store_true", help="return when they hold nothing more")
    parser.add_argument("--timeout", type=float, default=60.0, metavar="S", help="wait no longer (60 s)")
    parser.set_defaults(act=drain)
    parser = acts.add_parser("undrain", help="let drained workers work again")
    _add_choice(parser)
    parser.set_defaults(act=undrain)


def drain(arguments: argparse.Namespace, desk: Desk) -> int:
    chosen = _chosen(arguments, desk)
    desk.fleet.drain(worker.name for worker in chosen)
    for worker in chosen:
        print(f"{worker.name}: told to drain; it held {_steps(worker)} at its last beat")
    if not arguments.wait:
        return 0
    left = _wait({worker.name for worker in chosen}, arguments.timeout, desk)
    if left:
        complain(f"still at work after {arguments.timeout:g} s: {', '.join(sorted(left))}")
        return EXIT_LATE
    print("drained")
    return 0


def undrain(arguments: argparse.Namespace, desk: Desk) -> int:
    chosen = _chosen(arguments, desk)
    desk.fleet.undrain(worker.name for worker in chosen)
    for worker in chosen:
        print(f"{worker.name}: works again from its next beat on")
    return 0


def _add_choice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("workers", nargs="*", metavar="WORKER", help="names, as `ananse admin workers` shows")
    parser.add_argument("--host", action="append", default=[], help="all workers of this host")
    parser.add_argument("--all", action="store_true", help="all workers that are alive now")


def _chosen(arguments: argparse.Namespace, desk: Desk) -> list[WorkerState]:
    if not (arguments.all or arguments.host or arguments.workers):
        raise StartError("name workers, or use --host or --all")
    live = desk.fleet.live()
    unknown = set(arguments.workers) - {worker.name for worker in live}
    unknown |= set(arguments.host) - {worker.host for worker in live}
    if unknown or not live:
        names = ", ".join(f"{worker.name} on {worker.host}" for worker in live) or "nobody"
        raise StartError(f"not alive: {', '.join(sorted(unknown)) or 'any worker'}; alive: {names}")
    return [
        worker
        for worker in live
        if arguments.all or worker.name in arguments.workers or worker.host in arguments.host
    ]


def _wait(names: set[str], timeout_s: float, desk: Desk) -> set[str]:
    """Those that still hold something in the end. Who has gone holds nothing."""
    deadline = time.monotonic() + timeout_s
    while True:
        left = {w.name for w in desk.fleet.live() if w.name in names and (w.busy or not w.draining)}
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(_LOOK_S)


def _steps(worker: WorkerState) -> str:
    return "one step" if worker.busy == 1 else f"{worker.busy or 'no'} steps"
