"""`ananse models`: what is served, and what it can do."""

import argparse
import json

from ananse_client.cli.ending import Exit, add_connection, connect, told
from ananse_client.shapes import Model

_SHOWN_LANGUAGES = 8


def add_to(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("models", help="list the models a service has")
    parser.add_argument("--json", action="store_true", help="one line of JSON for each")
    add_connection(parser)
    parser.set_defaults(run=told(run))


def run(arguments: argparse.Namespace) -> int:
    with connect(arguments) as client:
        for model in client.models():
            print(json.dumps(model.raw, ensure_ascii=False) if arguments.json else _line(model), flush=True)
    return Exit.DONE


def _line(model: Model) -> str:
    mark = "*" if model.default else " "
    if not model.live or model.abilities is None:
        return f"{mark} {model.name}: no worker is up"
    can = model.abilities
    words = [f"{model.device} {model.dtype}", *can.tasks]
    words += ["word times"] if can.word_timestamps else []
    languages = ", ".join(can.languages[:_SHOWN_LANGUAGES])
    more = len(can.languages) - _SHOWN_LANGUAGES
    words.append(f"languages: {languages}" + (f" and {more} more" if more > 0 else ""))
    words += [f"{model.rtfx:g} s of audio a second"] if model.rtfx else []
    return f"{mark} {model.name}: " + "; ".join(words)
