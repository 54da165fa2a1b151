"""`ananse watch DIR`: transcribes what comes into a folder, until Ctrl-C."""

import argparse
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from ananse_client.cli.asking import RETRIES, add_wish, desk_of
from ananse_client.cli.crew import each
from ananse_client.cli.ending import complain, connect, require_up, told
from ananse_client.cli.inputs import EXTENSIONS, Recording, find
from ananse_client.cli.transcribe import show
from ananse_client.cli.work import place_of
from ananse_client.errors import ServiceError, Unreachable

_LOOK_S = 2.0

Sizes = Mapping[str, tuple[int, int]]


def add_to(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("watch", help="transcribe what comes into a folder")
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--output-dir", "-o", type=Path, metavar="DIR", help="default: beside the recordings")
    parser.add_argument("--once", action="store_true", help="what is there now, and no more")
    parser.add_argument(
        "--every", type=float, default=_LOOK_S, metavar="SECONDS", help="how often to look (%(default)s)"
    )
    add_wish(parser)
    parser.set_defaults(run=told(run))


def run(arguments: argparse.Namespace) -> int:
    """A file is begun when it has not changed between two looks, and not when its transcripts are there."""
    folder, output = arguments.folder, arguments.output_dir or arguments.folder
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is no folder")
    before: Sizes = {}
    failed: set[tuple[str, tuple[int, int]]] = set()
    with connect(arguments, RETRIES) as client:
        desk = desk_of(arguments, client, output)
        require_up(arguments)
        if not arguments.quiet and not arguments.once:
            print(f"watching {folder}, until Ctrl-C", file=sys.stderr, flush=True)
        while True:
            recordings = [one for one in find([str(folder)]) if not _is_done(one, output, arguments.format)]
            sizes = {one.source: _size(one) for one in recordings}
            still = [
                one
                for one in recordings
                if before.get(one.source) == sizes[one.source]
                and (one.source, sizes[one.source]) not in failed
            ]
            code = 0
            for outcome in each(desk, still, arguments.parallel):
                code = show([outcome], as_json=arguments.json, with_names=False) or code
                if outcome.error is not None and not _may_pass(outcome.error):
                    failed.add((outcome.recording.source, sizes[outcome.recording.source]))
            if arguments.once and before:
                return code
            if arguments.once and not recordings:
                complain("there is nothing to do")
                return code
            before = sizes
            time.sleep(arguments.every)


def _may_pass(error: Exception) -> bool:
    """Then the file is tried again at the next look, as after a restart of the service."""
    if isinstance(error, ServiceError):
        return error.retryable
    return isinstance(error, Unreachable)


def _is_done(recording: Recording, output: Path, formats: str) -> bool:
    """Its transcripts are there, and younger than it."""
    places = [place_of(recording, output, name) for name in formats.split(",") if name in EXTENSIONS]
    made_at = Path(recording.source).stat().st_mtime
    return bool(places) and all(place.exists() and place.stat().st_mtime >= made_at for place in places)


def _size(recording: Recording) -> tuple[int, int]:
    stat = Path(recording.source).stat()
    return stat.st_size, stat.st_mtime_ns
