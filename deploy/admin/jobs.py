"""`ananse admin job`: one job's record, its steps, its last events and where its bytes lie."""

import argparse
import json
import os
from dataclasses import asdict
from typing import Any

from deploy.admin import tables
from deploy.admin.desk import Desk
from shared import job_files
from shared.blob_store import BlobMissing
from shared.errors import DependencyError
from shared.job import Job
from shared.job_store import Ahead, Event
from shared.ledger import part_step
from shared.survey import StepState
from shared.transcript import Transcript

_EVENTS = 10
_HIDDEN = "…"


def add_to(acts: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = acts.add_parser("job", help="one job: its record, steps, events and files")
    parser.add_argument("job", metavar="ID")
    parser.add_argument("--json", action="store_true", help="for scripts")
    parser.add_argument("--text", action="store_true", help="what was said, too: it is left out else")
    parser.set_defaults(act=run)


def run(arguments: argparse.Namespace, desk: Desk) -> int:
    job = desk.jobs.get(arguments.job)
    ahead = None if job.status.is_terminal else desk.jobs.ahead(job.id)
    steps = desk.survey.steps(job.id)
    events = [_event_row(one, arguments.text) for one in desk.survey.last_events(job.id, _EVENTS)]
    files = _files(job, desk)
    text = _said(job, desk) if arguments.text else None
    rows: dict[str, Any] = {
        "job": _record(job),
        "ahead": asdict(ahead) if ahead else None,
        "steps": tables.rows_of(steps),
        "events": events,
        "blobs": {"url": desk.settings.blob_url, "files": files},
    }
    if arguments.text:
        rows["text"] = text
    parts = [_facts(job, ahead, desk), _steps_text(steps), _files_text(files), _events_text(events)]
    tables.show(arguments.json, rows, "\n\n".join(part for part in (*parts, text) if part))
    return 0


def _record(job: Job) -> dict[str, Any]:
    """As it is kept, but for the secret that its webhook is sent with, and the prompt, which is somebody's
    words."""
    row = asdict(job)
    for name in ("webhook_auth_header_value", "prompt"):
        if row["options"][name] is not None:
            row["options"][name] = _HIDDEN
    return row


def _facts(job: Job, ahead: Ahead | None, desk: Desk) -> str:
    state = f"{job.status}, {job.stage}" if job.stage else str(job.status)
    facts = {
        "job": job.id,
        "state": state,
        "client": job.tenant,
        "model": job.options.model,
        "recording": f"{tables.size(job.media.size_bytes)}, {tables.amount(job.media.duration_s)}",
        "done": f"{tables.amount(job.done_s)} of {tables.amount(job.total_s)}",
        "attempt": str(job.attempt),
        "created": tables.instant(job.created_at),
        "started": tables.instant(job.started_at),
        "finished": tables.instant(job.finished_at),
        "expires": tables.instant(job.expires_at),
        "request": job.request_id or tables.NOTHING,
        "webhook": job.webhook_status or tables.NOTHING,
        "blobs": f"{desk.settings.blob_url.rstrip('/')}/{job_files.folder(job.id)}",
    }
    if ahead is not None:
        facts["ahead"] = f"{ahead.files} files, {tables.amount(ahead.audio_s)} of audio"
    if job.failure is not None:
        facts["failure"] = f"{job.failure.code}: {job.failure.detail}"
    return "\n".join(f"{name:<10}{value}" for name, value in facts.items())


def _steps_text(steps: tuple[StepState, ...]) -> str:
    head = ("STEP", "STATE", "WORKER", "ATTEMPT", "CLAIMS", "FAILURES", "DONE", "OF", "LEFT", "IN LINE")
    rows = [
        (
            one.step,
            one.place.replace("_", " "),
            one.worker or tables.NOTHING,
            str(one.attempt),
            str(one.claims),
            str(one.failures),
            tables.amount(one.done_s),
            tables.amount(one.audio_s),
            tables.amount(_left_s(one)),
            str(one.position or tables.NOTHING),
        )
        for one in steps
    ]
    return tables.table(head, rows)


def _left_s(step: StepState) -> float | None:
    """Of the lease, of the time a hint has to be taken in, or of the pause before the next try."""
    return step.lease_left_s if step.lease_left_s is not None else step.due_in_s


def _files(job: Job, desk: Desk) -> dict[str, int] | None:
    """Sizes by name of what is there; None when nobody can tell."""
    named = [job_files.media, job_files.manifest, job_files.outcome, job_files.transcript]
    names = [name(job.id) for name in named]
    for number in range(job.parts):
        step = part_step(number)
        names += [job_files.part_audio(job.id, step), job_files.part_result(job.id, step)]
    found = {}
    try:
        blobs = desk.blobs()
        for name in names:
            try:
                with blobs.open(name) as file:
                    found[name.rsplit("/", 1)[-1]] = file.seek(0, os.SEEK_END)
            except BlobMissing:
                continue
    except (DependencyError, OSError):
        return None
    return found


def _files_text(files: dict[str, int] | None) -> str:
    if files is None:
        return "The blob store cannot be reached from here."
    return tables.table(("FILE", "SIZE"), [(name, tables.size(count)) for name, count in files.items()])


def _event_row(event: Event, with_text: bool) -> dict[str, Any]:
    body = json.loads(event.body)
    if event.kind == "window" and not with_text:
        body = {name: body.get(name) for name in ("index", "start", "end")}
    return {"at_ms": int(event.id.split("-")[0]), "kind": event.kind, "body": body}


def _events_text(events: list[dict[str, Any]]) -> str:
    if not events:
        return ""
    last_ms = events[-1]["at_ms"]
    rows = [
        (f"-{(last_ms - one['at_ms']) / 1000:.1f} s", one["kind"], json.dumps(one["body"])) for one in events
    ]
    return tables.table(("BEFORE", "EVENT", "BODY"), rows)


def _said(job: Job, desk: Desk) -> str | None:
    """The transcript, or what there is of it."""
    try:
        return Transcript.from_json(desk.blobs().read(job_files.transcript(job.id))).text
    except BlobMissing:
        windows = sorted(desk.jobs.windows(job.id), key=lambda window: window.index)
        return " ".join(segment.text.strip() for window in windows for segment in window.segments) or None
