"""The `ananse` command. Each subcommand is a module with `add_to(subparsers)`.

Where the client is installed its commands are here too, and ours are in its `ananse` by an entry point: see
docs/adr/0024.
"""

import argparse
import functools
import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence

from dotenv import load_dotenv

from deploy import first_run, keys, up, webhook_secret, webhooks
from deploy.admin import command as admin
from deploy.errors import EXIT_FAILED, StartError
from deploy.supervisor import complain
from shared.settings import SettingsError

COMMANDS = (up, first_run, keys, webhook_secret, webhooks, admin)
_EXIT_INTERRUPTED = 130
_CLIENT = "ananse_client"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one subcommand; what is wrong is one sentence on standard error."""
    chosen = _parser().parse_args(arguments)
    return int(chosen.run(chosen))


def add_to(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """All our commands; the client's `ananse` calls this."""
    for command in COMMANDS:
        known = set(subparsers.choices)
        command.add_to(subparsers)
        for name in subparsers.choices.keys() - known:
            parser = subparsers.choices[name]
            parser.set_defaults(run=_told(parser.get_default("run")))


def _told(command: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    @functools.wraps(command)
    def run(chosen: argparse.Namespace) -> int:
        load_dotenv(".env")
        try:
            return int(command(chosen))
        except (StartError, SettingsError) as error:
            complain(str(error))
            return EXIT_FAILED
        except KeyboardInterrupt:
            return _EXIT_INTERRUPTED

    return run


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ananse", description="Self-hosted speech transcription. Settings: docs/configuration.md."
    )
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    add_to(subparsers)
    # The images do without the client.
    if importlib.util.find_spec(_CLIENT) is not None:
        importlib.import_module(f"{_CLIENT}.cli").add_to(subparsers)
    return parser


if __name__ == "__main__":
    sys.exit(main())
