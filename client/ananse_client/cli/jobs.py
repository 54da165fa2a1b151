"""`ananse jobs`: what was sent and what became of it; and acts on single jobs."""

import argparse
import json
from collections.abc import Mapping
from typing import Any

from ananse_client.cli.ending import Exit, UsageError, add_connection, connect, told
from ananse_client.client import Client
from ananse_client.shapes import Job

_NAME = 36
_ACTS = ("cancel", "retry", "delete", "deliveries")


def add_to(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser("jobs", help="list jobs, or act on one: cancel, retry, delete, deliveries")
    parser.add_argument("act", nargs="?", choices=("list", "show", *_ACTS), default="list", metavar="ACT")
    parser.add_argument("ids", nargs="*", metavar="ID")
    parser.add_argument("--status", help="only these: queued, running, completed, failed, canceled, expired")
    parser.add_argument("--model")
    parser.add_argument("--tag")
    parser.add_argument("--limit", type=int, default=20)
    parser.add_argument("--json", action="store_true", help="one line of JSON for each")
    add_connection(parser)
    parser.set_defaults(run=told(run))


def run(arguments: argparse.Namespace) -> int:
    if (arguments.act == "list") is bool(arguments.ids):
        raise UsageError(
            f"`ananse jobs {arguments.act}` takes {'no ids' if arguments.ids else 'the ids of jobs'}"
        )
    with connect(arguments) as client:
        if arguments.act == "list":
            _list(client, arguments)
        for job_id in arguments.ids:
            for row in _act(client, arguments.act, job_id):
                _print(row, as_json=arguments.json)
    return Exit.DONE


def _list(client: Client, arguments: argparse.Namespace) -> None:
    left, cursor = arguments.limit, None
    while left > 0:
        page = client.jobs(
            status=arguments.status,
            model=arguments.model,
            tag=arguments.tag,
            cursor=cursor,
            limit=min(left, 100),
        )
        for job in page.jobs:
            _print(job.raw, as_json=arguments.json)
        left, cursor = left - len(page.jobs), page.next_cursor
        if cursor is None:
            return


def _act(client: Client, act: str, job_id: str) -> list[Mapping[str, Any]]:
    if act == "delete":
        client.delete(job_id)
        return [{"id": job_id, "status": "deleted"}]
    if act == "deliveries":
        return [delivery.raw for delivery in client.deliveries(job_id)]
    job: Job = {"show": client.job, "cancel": client.cancel, "retry": client.retry}[act](job_id)
    return [job.raw]


def _print(row: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(row, ensure_ascii=False), flush=True)
    elif "attempt" in row and "at" in row:
        print(
            f"{row['attempt']:>3}  {row['at']}  {row.get('status') or '-'}  {row.get('error') or ''}".rstrip()
        )
    else:
        media, progress = row.get("media") or {}, row.get("progress") or {}
        fraction = progress.get("fraction")
        done = f"{fraction:4.0%}" if fraction is not None else "   -"
        code = (row.get("error") or {}).get("code", "")
        name = str(media.get("name", ""))[:_NAME]
        print(f"{row['id']}  {row['status']:<9} {done}  {name:<{_NAME}} {code}".rstrip(), flush=True)
