"""`ananse transcribe FILE...`: recordings in, transcripts out."""

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path

from ananse_client.cli.asking import RETRIES, add_wish, desk_of
from ananse_client.cli.crew import each
from ananse_client.cli.ending import Exit, code_of, complain, connect, require_up, told
from ananse_client.cli.inputs import find
from ananse_client.cli.work import Outcome

_EPILOG = """Run again after Ctrl-C, the same command goes on where it was: nothing is uploaded or transcribed
twice. Exit codes: 0 all done, 1 one or more failed, 2 the command line, 3 the service does not answer, 4 the
service does not know your key, 130 stopped."""


def add_to(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("transcribe", help="transcribe recordings", epilog=_EPILOG)
    parser.add_argument("files", nargs="+", metavar="FILE", help="files, folders, patterns or addresses")
    parser.add_argument(
        "--output-dir", "-o", type=Path, metavar="DIR", help="default: transcripts go to standard output"
    )
    add_wish(parser)
    parser.set_defaults(run=told(run))


def run(arguments: argparse.Namespace) -> int:
    recordings = find(arguments.files)
    if not recordings:
        raise FileNotFoundError("there are no recordings in there")
    with connect(arguments, RETRIES) as client:
        desk = desk_of(arguments, client, arguments.output_dir)
        require_up(arguments)
        try:
            return show(
                each(desk, recordings, arguments.parallel),
                as_json=arguments.json,
                with_names=len(recordings) > 1,
            )
        except KeyboardInterrupt:
            complain(
                "stopped; what was sent is transcribed all the same. The same command again goes on from here"
            )
            raise


def show(outcomes: Iterable[Outcome], *, as_json: bool, with_names: bool) -> int:
    """The exit code of the first that failed."""
    code = Exit.DONE
    for outcome in outcomes:
        if as_json:
            print(json.dumps(outcome.as_json(), ensure_ascii=False), flush=True)
        else:
            for text in outcome.texts:
                name = f"# {outcome.recording.name}\n" if with_names else ""
                sys.stdout.write(name + text)
                sys.stdout.flush()
        if outcome.error is not None:
            complain(f"{outcome.recording.source}: {outcome.error}")
            code = code or code_of(outcome.error)
    return code
