"""`ananse admin pause` and `resume`: no step of a model's queues is given out; the API goes on accepting."""

import argparse

from deploy.admin.desk import Desk
from deploy.errors import StartError
from shared.ledger import ALL_QUEUES
from shared.models import long_queue_of, parse_models, queue_of


def add_to(acts: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    for name, act, sentence in (
        ("pause", pause, "give out no more steps; what was given out goes on"),
        ("resume", resume, "give out steps again"),
    ):
        parser = acts.add_parser(name, help=sentence)
        parser.add_argument("models", nargs="*", metavar="MODEL")
        parser.add_argument("--all", action="store_true", help="every queue, decoding and webhooks as well")
        parser.set_defaults(act=act)


def pause(arguments: argparse.Namespace, desk: Desk) -> int:
    queues = _queues(arguments, desk)
    desk.ledger.pause(queues)
    print(f"paused: {_named(arguments)}")
    return 0


def resume(arguments: argparse.Namespace, desk: Desk) -> int:
    paused = desk.ledger.paused()
    queues = _queues(arguments, desk)
    if arguments.all:
        queues = sorted(paused)
    elif ALL_QUEUES in paused:
        raise StartError("everything is paused; use `ananse admin resume --all`")
    if queues:
        desk.ledger.resume(queues)
    print(f"resumed: {_named(arguments)}")
    desk.dispatcher().dispatch()
    return 0


def _queues(arguments: argparse.Namespace, desk: Desk) -> list[str]:
    if arguments.all == bool(arguments.models):
        raise StartError("name models, or use --all")
    if arguments.all:
        return [ALL_QUEUES]
    unknown = set(arguments.models) - _known(desk)
    if unknown:
        known = ", ".join(sorted(_known(desk)))
        raise StartError(f"no such model: {', '.join(sorted(unknown))}; there are: {known}")
    return [queue for model in arguments.models for queue in (queue_of(model), long_queue_of(model))]


def _known(desk: Desk) -> set[str]:
    """Served, set, or waited for."""
    live = {card.name for worker in desk.fleet.live() for card in worker.models}
    return live | desk.survey.owed_s().keys() | {one.name for one in parse_models(desk.settings.models)}


def _named(arguments: argparse.Namespace) -> str:
    return "everything" if arguments.all else ", ".join(arguments.models)
