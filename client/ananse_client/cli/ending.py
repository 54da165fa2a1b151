"""How a command ends: the exit codes, and one sentence on standard error for what went wrong."""

import argparse
import functools
import sys
from collections.abc import Callable
from enum import IntEnum

from ananse_client.client import Client
from ananse_client.errors import AnanseError, Forbidden, ServiceError, Unauthorized, Unreachable
from ananse_client.flows import Patience

Command = Callable[[argparse.Namespace], int]


class UsageError(ValueError):
    """The command line says what cannot be meant."""


class Exit(IntEnum):
    """USAGE is argparse's own too."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    NOT_ALLOWED = 4
    INTERRUPTED = 130


def told(command: Command) -> Command:
    """`command`, with its failures told and turned into exit codes."""

    @functools.wraps(command)
    def run(arguments: argparse.Namespace) -> int:
        try:
            return command(arguments)
        except KeyboardInterrupt:
            return Exit.INTERRUPTED
        except BrokenPipeError:
            # As `| head` does it; Python would complain once more when it closes standard output.
            sys.stdout = None
            return Exit.FAILED
        except (AnanseError, OSError, ValueError) as error:
            complain(str(error))
            return code_of(error)

    return run


def code_of(error: BaseException) -> Exit:
    if isinstance(error, Unreachable):
        return Exit.UNREACHABLE
    if isinstance(error, Unauthorized | Forbidden):
        return Exit.NOT_ALLOWED
    if isinstance(error, UsageError):
        return Exit.USAGE
    return Exit.FAILED


def complain(sentence: str) -> None:
    print(f"ananse: {sentence}", file=sys.stderr, flush=True)


def add_connection(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", help="the service's address (default: ANANSE_URL, or http://127.0.0.1:8000)")
    parser.add_argument("--api-key", help="default: ANANSE_API_KEY, which keeps it out of the process list")


def require_up(arguments: argparse.Namespace) -> None:
    """That nobody is there, or does not know the key, is told at once; who was there once is waited for when
    it is restarted. Raises Unreachable, Unauthorized."""
    try:
        with connect(arguments) as client:
            client.models()
    except Unauthorized:
        raise
    except ServiceError:
        return


def connect(arguments: argparse.Namespace, retries: int = 2) -> Client:
    return Client(arguments.url, api_key=arguments.api_key, patience=Patience(retries))
