"""One recording from the disk to its transcripts, going on where an earlier command was stopped."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ananse_client.calls import completed
from ananse_client.cli.bars import Bar, Bars
from ananse_client.cli.inputs import EXTENSIONS, Recording
from ananse_client.cli.memory import Memory, work_of
from ananse_client.client import Client
from ananse_client.errors import AnanseError, Expired, JobError, NotFound, ServiceError
from ananse_client.shapes import Event, Format, Job, Options, Shaping


@dataclass(frozen=True, slots=True)
class Wish:
    """`folder` is None for transcripts that are printed. `again` sends what was sent before."""

    options: Options
    formats: Sequence[Format]
    shaping: Shaping
    folder: Path | None = None
    again: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """`files` are the transcripts' places, or `texts` themselves where there is no folder."""

    recording: Recording
    job_id: str = ""
    error: Exception | None = None
    files: tuple[Path, ...] = ()
    texts: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {
            "file": self.recording.source,
            "job_id": self.job_id or None,
            "status": "failed" if self.error else "completed",
            "error": _told(self.error) if self.error else None,
            "outputs": [str(path) for path in self.files],
            "transcripts": list(self.texts),
        }


def _told(error: Exception) -> Mapping[str, Any]:
    code = error.problem.code if isinstance(error, ServiceError) else type(error).__name__
    return {"code": code, "detail": getattr(error, "detail", "") or str(error)}


class Desk:
    """Does one recording after another, or several at once, from threads."""

    def __init__(self, client: Client, memory: Memory, bars: Bars, wish: Wish) -> None:
        self._client = client
        self._memory = memory
        self._bars = bars
        self._wish = wish

    def do(self, recording: Recording) -> Outcome:
        """Never raises what is about this recording alone."""
        job_id = ""
        with self._bars.bar(recording.name) as bar:
            try:
                work = work_of(self._client.url, recording.source, self._wish.options)
                if self._wish.again:
                    self._memory.forget(work)
                job_id = self._job_of(work, recording, bar)
                self._follow(work, job_id, bar)
                outcome = self._written(recording, job_id)
            except (AnanseError, OSError) as error:
                bar.show(_reason(error), bar.fraction)
                return Outcome(recording, job_id, error)
            bar.show("done", 1.0)
            return outcome

    def _job_of(self, work: str, recording: Recording, bar: Bar) -> str:
        """That of an earlier command, where the service still has it; else a new one."""
        sent = self._memory.begin(work)
        if sent.job_id:
            if self._is_usable(sent.job_id):
                return sent.job_id
            self._memory.forget(work)
            sent = self._memory.begin(work)
        job = self._submit(recording, sent.idempotency_key, bar)
        self._memory.note(work, job.id)
        return job.id

    def _submit(self, recording: Recording, key: str, bar: Bar) -> Job:
        return self._client.submit(
            recording.source,
            idempotency_key=key,
            on_upload=lambda sent, size: bar.show("uploading", sent / size if size else 1.0),
            **self._wish.options,
        )

    def _is_usable(self, job_id: str) -> bool:
        try:
            return self._client.job(job_id).status in ("queued", "running", "completed")
        except (NotFound, Expired):
            return False

    def _follow(self, work: str, job_id: str, bar: Bar) -> None:
        bar.show("queued", 0.0)
        stage, fraction = "queued", 0.0
        for event in self._client.events(job_id):
            stage, fraction = _shown(event, stage, fraction)
            bar.show(stage, fraction)
        try:
            completed(self._client.wait(job_id))
        except JobError:
            self._memory.forget(work)
            raise

    def _written(self, recording: Recording, job_id: str) -> Outcome:
        texts = [
            self._client.rendered(job_id, format, **(self._wish.shaping if format in ("srt", "vtt") else {}))
            for format in self._wish.formats
        ]
        if self._wish.folder is None:
            return Outcome(recording, job_id, texts=tuple(texts))
        files = [place_of(recording, self._wish.folder, format) for format in self._wish.formats]
        for path, text in zip(files, texts, strict=True):
            write(path, text)
        return Outcome(recording, job_id, files=tuple(files))


def place_of(recording: Recording, folder: Path, format: str) -> Path:
    return folder / recording.place.parent / f"{recording.place.name}.{EXTENSIONS[format]}"


def write(path: Path, text: str) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    # Line ends as they came: CSV has its own.
    draft.write_text(text, encoding="utf-8", newline="")
    draft.replace(path)


def _shown(event: Event, stage: str, fraction: float) -> tuple[str, float]:
    if event.kind == "progress" and event.total_s:
        return "transcribing", cast(float, event.done_s) / event.total_s
    if event.kind == "state":
        return event.stage or event.status or stage, fraction
    return stage, fraction


def _reason(error: Exception) -> str:
    return error.problem.code if isinstance(error, ServiceError) else "failed"
