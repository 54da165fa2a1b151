"""`ananse doctor MODEL`: examines a Whisper checkpoint, where a worker's packages are installed."""

import argparse
import importlib
import importlib.util
import json
from typing import Any

from ananse_client.cli.ending import Exit, complain, told

_MODULE = "worker.doctor_command"


def add_to(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("doctor", help="examine a Whisper checkpoint before it is served")
    parser.add_argument("model", help="a folder, a hub id or a name the service knows")
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(run=told(run))


def run(arguments: argparse.Namespace) -> int:
    """The worker's packages are looked for by name: this package must do without them."""
    if not _is_installed():
        complain(
            "doctor needs a worker's packages: run it where a worker runs, or in a checkout after `make venv`"
        )
        return Exit.FAILED
    report: dict[str, Any] = importlib.import_module(_MODULE).report(arguments.model)
    if arguments.json:
        print(json.dumps(report, ensure_ascii=False))
    elif report["usable"]:
        _show(report)
    if not report["usable"]:
        complain(f"{arguments.model}: {report['reason']}")
        return Exit.FAILED
    return Exit.DONE


def _is_installed() -> bool:
    try:
        return all(importlib.util.find_spec(name) for name in (_MODULE, "torch", "transformers"))
    except ImportError:
        return False


def _show(report: dict[str, Any]) -> None:
    can = report["abilities"]
    print(f"{report['model']} can be served.")
    print(f"  from        {report['source']} (revision {report['revision']})")
    print(f"  tasks       {', '.join(can['tasks'])}")
    print(f"  languages   {', '.join(can['languages']) or 'not said'}")
    for name in ("segment_timestamps", "word_timestamps", "language_detection", "prompt"):
        print(f"  {name.replace('_', ' '):<19} {'yes' if can[name] else 'no'}")
    print(f"  window      {can['window_s']:g} s")
    for repair in can["repairs"]:
        print(f"  repaired    {repair}")
