"""The `ananse` command. Each subcommand is a module with `add_to(subparsers)`."""

import argparse
import sys
from collections.abc import Sequence

from dotenv import load_dotenv

from deploy import first_run, up, webhook_secret, webhooks
from deploy.admin import command as admin
from deploy.errors import EXIT_FAILED, StartError
from deploy.supervisor import complain
from shared.settings import SettingsError

COMMANDS = (up, first_run, webhook_secret, webhooks, admin)
_EXIT_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one subcommand; what is wrong is one sentence on standard error."""
    chosen = _parser().parse_args(arguments)
    load_dotenv(".env")
    try:
        return int(chosen.run(chosen))
    except (StartError, SettingsError) as error:
        complain(str(error))
        return EXIT_FAILED
    except KeyboardInterrupt:
        return _EXIT_INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ananse", description="Self-hosted speech transcription. Settings: docs/configuration.md."
    )
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_to(subparsers)
    return parser


if __name__ == "__main__":
    sys.exit(main())
