"""`ananse admin queues`: what waits, for how long, and how fast it goes."""

import argparse
from dataclasses import dataclass

from deploy.admin import tables
from deploy.admin.desk import Desk
from shared.fleet import WorkerState, capacity
from shared.ledger import ALL_QUEUES
from shared.models import long_queue_of, queue_of
from shared.survey import QueueState


@dataclass(frozen=True, slots=True)
class ModelState:
    """`speed` is of all live workers together, audio seconds per second; `drains_in_s` what is owed at it."""

    name: str
    owed_s: float
    workers: int
    slots: int
    speed: float | None
    drains_in_s: float | None
    paused: bool


@dataclass(frozen=True, slots=True)
class QueueWithSlots:
    """`slots` of live workers that are not draining."""

    state: QueueState
    slots: int


def add_to(acts: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = acts.add_parser("queues", help="what waits, for how long, and how fast it goes")
    tables.add_to(parser)
    parser.set_defaults(act=run)


def run(arguments: argparse.Namespace, desk: Desk) -> int:
    tables.watch(arguments.watch, lambda: _draw(desk, arguments.json))
    return 0


def _draw(desk: Desk, as_json: bool) -> None:
    workers = desk.fleet.live()
    queues = [
        QueueWithSlots(desk.survey.queue(name), capacity(workers, name)) for name in desk.ledger.queues()
    ]
    models = model_states(desk, workers)
    rows = {
        "models": tables.rows_of(models),
        "queues": [row | {"slots": one.slots} for one, row in zip(queues, _states(queues), strict=True)],
    }
    tables.show(as_json, rows, f"{_models_text(models)}\n\n{_queues_text(queues)}")


def model_states(desk: Desk, workers: tuple[WorkerState, ...]) -> list[ModelState]:
    owed, known, paused = desk.survey.owed_s(), desk.fleet.speeds(), desk.ledger.paused()
    names = set(owed) | {card.name for worker in workers for card in worker.models}
    return [_model_state(name, owed.get(name, 0.0), workers, known, paused) for name in sorted(names)]


def _model_state(
    name: str,
    owed_s: float,
    workers: tuple[WorkerState, ...],
    known: dict[str, float],
    paused: frozenset[str],
) -> ModelState:
    serving = [w for w in workers if not w.draining and any(card.name == name for card in w.models)]
    speed = sum(w.rtfx.get(name) or known.get(name, 0.0) for w in serving) or None
    return ModelState(
        name=name,
        owed_s=owed_s,
        workers=len(serving),
        slots=capacity(serving, queue_of(name)) + capacity(serving, long_queue_of(name)),
        speed=speed,
        drains_in_s=round(owed_s / speed, 1) if speed else None,
        paused=bool(paused & {ALL_QUEUES, queue_of(name), long_queue_of(name)}),
    )


def _models_text(models: list[ModelState]) -> str:
    head = ("MODEL", "OWED", "WORKERS", "SLOTS", "SPEED", "DRAINS IN", "")
    rows = [
        (
            one.name,
            tables.amount(one.owed_s),
            str(one.workers),
            str(one.slots),
            tables.times(one.speed),
            tables.amount(one.drains_in_s),
            _mark(one.paused),
        )
        for one in models
    ]
    return tables.table(head, rows)


def _queues_text(queues: list[QueueWithSlots]) -> str:
    head = ("QUEUE", "WAITING", "PUT OFF", "SENT", "HELD", "SLOTS", "AUDIO", "OLDEST", "CLIENTS", "")
    rows = [
        (
            state.name,
            str(state.waiting),
            str(state.put_off),
            str(state.sent),
            str(state.held),
            str(one.slots),
            tables.amount(state.waiting_audio_s),
            tables.amount(state.oldest_s),
            str(state.clients),
            _mark(state.paused),
        )
        for one in queues
        for state in (one.state,)
    ]
    return tables.table(head, rows)


def _states(queues: list[QueueWithSlots]) -> list[dict[str, object]]:
    return tables.rows_of([one.state for one in queues])


def _mark(paused: bool) -> str:
    return "paused" if paused else ""
