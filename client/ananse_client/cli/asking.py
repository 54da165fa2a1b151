"""The options that `transcribe` and `watch` have in common."""

import argparse
from pathlib import Path
from typing import Any, get_args

from ananse_client.cli.bars import Bars
from ananse_client.cli.ending import UsageError, add_connection
from ananse_client.cli.memory import Memory, default_path
from ananse_client.cli.work import Desk, Wish
from ananse_client.client import Client
from ananse_client.shapes import Format

RETRIES = 8
"""Some two minutes: a service that is restarted is worth waiting for."""
FORMATS: tuple[Format, ...] = get_args(Format)
_OPTIONS = ("model", "language", "task", "word_timestamps", "prompt", "temperature", "tag", "priority")
_SHAPING = ("max_line_chars", "max_lines", "max_cps", "min_gap_s", "word_cues")


def add_wish(parser: argparse.ArgumentParser) -> None:
    add_connection(parser)
    parser.add_argument(
        "--format", "-f", default="text", help=f"one or several, with commas: {', '.join(FORMATS)}"
    )
    parser.add_argument("--model", help="a name from `ananse models`")
    parser.add_argument("--language", help="the language spoken, as an ISO 639 code (default: found out)")
    parser.add_argument("--task", choices=("transcribe", "translate"), help="translate gives English text")
    parser.add_argument("--word-timestamps", action="store_true", default=None, help="times of single words")
    parser.add_argument("--prompt", help="words and names to expect")
    parser.add_argument("--temperature", type=float)
    parser.add_argument("--tag", help="a word to list the jobs by")
    parser.add_argument("--priority", type=int)
    parser.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help="any other option of a job"
    )
    subtitles = parser.add_argument_group("subtitles")
    subtitles.add_argument("--max-line-chars", type=int)
    subtitles.add_argument("--max-lines", type=int)
    subtitles.add_argument("--max-cps", type=float, help="characters a second that can be read")
    subtitles.add_argument("--min-gap-s", type=float, help="seconds between cues")
    subtitles.add_argument(
        "--word-cues", action="store_true", default=None, help="vtt: when each word is said"
    )
    parser.add_argument("--parallel", type=int, default=4, metavar="N", help="files at once (default: 4)")
    parser.add_argument(
        "--state", type=Path, default=default_path(), help="what was sent before (%(default)s)"
    )
    parser.add_argument("--again", action="store_true", help="send what was sent before once more")
    parser.add_argument(
        "--json", action="store_true", help="one line of JSON for each file on standard output"
    )
    parser.add_argument("--quiet", "-q", action="store_true", help="no progress")


def desk_of(arguments: argparse.Namespace, client: Client, folder: Path | None) -> Desk:
    """Raises UsageError."""
    options: dict[str, Any] = {name: getattr(arguments, name) for name in _OPTIONS}
    for given in arguments.option:
        name, separator, value = given.partition("=")
        if not separator or not name:
            raise UsageError(f"--option takes NAME=VALUE, not {given}")
        options[name] = value
    formats = [name for name in arguments.format.split(",") if name]
    if wrong := set(formats) - set(FORMATS) or ({""} if not formats else set()):
        raise UsageError(f"--format takes {', '.join(FORMATS)}, not {', '.join(sorted(wrong)) or 'nothing'}")
    if arguments.word_cues:
        options["word_timestamps"] = True
    options = {name: value for name, value in options.items() if value is not None}
    shaping: Any = {name: getattr(arguments, name) for name in _SHAPING}
    wish = Wish(options, formats, shaping, folder, arguments.again)  # type: ignore[arg-type]
    return Desk(client, Memory(arguments.state), Bars(wanted=not arguments.quiet), wish)
