"""The `ananse` command. Each subcommand is a module with `add_to(subparsers)`; other packages bring
theirs by the entry point group `ananse.commands`, so that there is one `ananse` whichever are installed."""

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points

from ananse_client.cli import doctor, jobs, models, transcribe, watch

COMMANDS = (transcribe, watch, jobs, models, doctor)
GROUP = "ananse.commands"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="ananse", description="Speech transcription: your recordings to a running Ananse."
    )
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    add_to(subparsers)
    for found in entry_points(group=GROUP):
        found.load()(subparsers)
    chosen = parser.parse_args(arguments)
    return int(chosen.run(chosen))


def add_to(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The client's own commands; each `run` tells its failures itself and returns the exit code."""
    for command in COMMANDS:
        command.add_to(subparsers)


if __name__ == "__main__":
    sys.exit(main())
