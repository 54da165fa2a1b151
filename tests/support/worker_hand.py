"""Moves jobs along as a worker would, through the real ledger and the real files, without a model."""

import json

from shared import job_files
from shared.blob_store import BlobStore
from shared.fleet import Fleet, WorkerState
from shared.job import Failure, Status
from shared.ledger import FINISH, PREPARE, Claim, Ledger, part_step
from shared.models import Abilities, ModelCard, queue_of
from shared.transcript import Language, Segment, Transcript, WindowResult

WORKER = "hand"
MODEL = "synthetic-en"


def window(index: int, start: float, end: float, text: str) -> WindowResult:
    """A finished window of one segment."""
    segment = Segment(0, start, end, text, -0.1, 1.2, 0.01, 0.0)
    return WindowResult(index, start, end, (segment,), language=Language("en", 0.9), inference_s=0.25)


class WorkerHand:
    """A worker's acts, one method each; `model` is the one its jobs ask for."""

    def __init__(self, ledger: Ledger, fleet: Fleet, blobs: BlobStore, model: str = MODEL) -> None:
        self._ledger = ledger
        self._fleet = fleet
        self._blobs = blobs
        self._model = model

    def come_up(self, languages: tuple[str, ...] = ("en",), *, word_timestamps: bool = False) -> None:
        """Is known as live, with a model of these abilities."""
        abilities = Abilities(languages, ("transcribe",), True, word_timestamps, False, False)
        details = {"torch": "2.13.0"}
        card = ModelCard(
            self._model, "models/synthetic-en", "r1", "cpu", "float32", 1_000_000, abilities, details
        )
        slots = {"fetch": 1, "prepare": 2, queue_of(self._model): 4, "deliver": 1}
        self._fleet.beat(WorkerState(WORKER, (card,), slots, rtfx={self._model: 12.5}))

    def begin(self, job_id: str) -> Claim:
        """Holds `prepare`: the job is running."""
        claim = self._ledger.claim(job_id, PREPARE, WORKER)
        assert claim.is_held
        return claim

    def cut(self, prepare: Claim, parts: int = 1, part_s: float = 30.0) -> list[Claim]:
        """Ends `prepare` with so many parts, each of them held."""
        for number in range(parts):
            self._ledger.offer_part(prepare, number, self._model, "{}", part_s)
        media = {"name": "talk.wav", "size_bytes": 1, "sha256": "0", "duration_s": parts * part_s}
        self._ledger.prepared(prepare, parts, {"decode_s": 0.5, "media": media | {"container": "wav"}})
        return [self._ledger.claim(prepare.job_id, part_step(number), WORKER) for number in range(parts)]

    def keep(self, part: Claim, result: WindowResult) -> None:
        """One window done, in the job store."""
        self._ledger.checkpoint(part, result, result.end - result.start)

    def store_part(self, part: Claim, *results: WindowResult) -> None:
        """A whole part done, in the blob store."""
        texts = [json.loads(result.to_json()) for result in results]
        self._blobs.write(job_files.part_result(part.job_id, part.step), json.dumps(texts).encode())
        self._ledger.finish_part(part)

    def end(self, job_id: str, *results: WindowResult) -> None:
        """Completes a job whose parts are done."""
        claim = self._ledger.claim(job_id, FINISH, WORKER)
        transcript = Transcript.of(results, 30.0)
        self._blobs.write(job_files.transcript(job_id), transcript.to_json().encode())
        used = {"name": self._model, "revision": "r1", "device": "cpu", "dtype": "float32"}
        fields = {"model": used, "language": {"code": "en", "confidence": 0.9}}
        self._ledger.end(claim, Status.COMPLETED, fields, webhook=None, retention_s=3600)

    def complete(self, job_id: str, *results: WindowResult) -> None:
        """All of a worker's acts in a row."""
        results = results or (window(0, 0.0, 1.5, "Good morning."),)
        (part,) = self.cut(self.begin(job_id))
        for result in results:
            self.keep(part, result)
        self.store_part(part, *results)
        self.end(job_id, *results)

    def fail(self, job_id: str, failure: Failure) -> None:
        fields = {"failure": {"code": failure.code, "detail": failure.detail, "retryable": failure.retryable}}
        claim = self.begin(job_id)
        self._ledger.end(claim, Status.FAILED, fields, webhook=None, retention_s=3600)
