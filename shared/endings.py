"""How a job ends, whoever ends it: one act in the ledger, with its webhook and its retention; then the
outcome is saved beside the recording."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from shared.errors import DependencyError
from shared.job import Failure, Job, Status
from shared.ledger import Claim, Ledger
from shared.log import get_logger
from shared.outcomes import Outcomes
from shared.settings import Settings
from shared.webhook_body import webhook_body

_log = get_logger()


class Endings:
    """`on_end` is told of each job that ended here, as it was before."""

    def __init__(
        self,
        ledger: Ledger,
        outcomes: Outcomes,
        settings: Settings,
        on_end: Callable[[Job, Status], None] = lambda job, status: None,
    ) -> None:
        self._on_end = on_end
        self._ledger = ledger
        self._outcomes = outcomes
        self._settings = settings

    def end(
        self, claim: Claim, job: Job, status: Status, fields: dict[str, Any], failure: Failure | None = None
    ) -> None:
        """Ends the job on behalf of the worker that holds `claim`. Raises Fenced."""
        more = {"failure": asdict(failure)} if failure else {}
        self._ledger.end(claim, status, fields | more, **self._terms(job, status, failure))
        self.save(job.id)
        self._on_end(job, status)

    def close(self, job: Job, status: Status, failure: Failure | None = None) -> bool:
        """Ends the job from outside. False when it had ended before."""
        fields = {"failure": asdict(failure)} if failure else {}
        if not self._ledger.close(job.id, status, fields, **self._terms(job, status, failure)):
            return False
        self.save(job.id)
        self._on_end(job, status)
        return True

    def save(self, job_id: str) -> None:
        """Never fails: what cannot be saved now, the sweeper will."""
        try:
            self._outcomes.save(job_id)
        except DependencyError as error:
            _log.warning("outcome_not_saved", job_id=job_id, code=error.code)

    def retention_s(self, job: Job) -> float:
        return job.options.retention_s or self._settings.retention_s

    def _terms(self, job: Job, status: Status, failure: Failure | None) -> dict[str, Any]:
        return {
            "webhook": webhook_body(job, status, failure, self._settings.public_url),
            "retention_s": self.retention_s(job),
            "media_retention_s": self._settings.media_retention_s,
        }
