"""`ananse admin workers`: who is alive, with what, and how busy."""

import argparse
import time

from deploy.admin import tables
from deploy.admin.desk import Desk
from shared.fleet import DECODER_GUARDS, WorkerState


def add_to(acts: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = acts.add_parser("workers", help="who is alive, with what, and how busy")
    tables.add_to(parser)
    parser.set_defaults(act=run)


def run(arguments: argparse.Namespace, desk: Desk) -> int:
    tables.watch(arguments.watch, lambda: _draw(desk, arguments.json))
    return 0


def condition(worker: WorkerState) -> str:
    if worker.draining:
        return "draining" if worker.busy else "drained"
    return "working" if worker.busy else "idle"


def _draw(desk: Desk, as_json: bool) -> None:
    workers = desk.fleet.live()
    rows = [
        row | {"state": condition(worker)}
        for worker, row in zip(workers, tables.rows_of(workers), strict=True)
    ]
    tables.show(as_json, rows, _text(workers))


def _text(workers: tuple[WorkerState, ...]) -> str:
    head = ("WORKER", "HOST", "PID", "DEVICE", "MODELS", "SLOTS", "SPEED", "FILL", "MEMORY", "UP")
    return tables.table((*head, "GUARDS", "STATE"), [_row(worker) for worker in workers])


def _row(worker: WorkerState) -> tuple[str, ...]:
    devices = sorted({card.device for card in worker.models})
    fills = [one["batch_fill"] for one in worker.engine.values() if one.get("batch_fill")]
    up_s = time.time() - worker.started_at if worker.started_at else None
    return (
        worker.name,
        worker.host,
        str(worker.pid),
        ",".join(devices) or tables.NOTHING,
        ",".join(card.name for card in worker.models) or tables.NOTHING,
        f"{worker.busy}/{sum(worker.slots.values())}",
        tables.times(sum(worker.rtfx.values())),
        f"{max(fills):.0%}" if fills else tables.NOTHING,
        tables.size(worker.rss_bytes or worker.peak_rss_bytes),
        tables.amount(max(0.0, up_s) if up_s is not None else None),
        f"{len(worker.guards)}/{DECODER_GUARDS}",
        condition(worker),
    )
