"""The worker's half of the service on the test's own Redis and folder: submit, wait, read."""

import hashlib
import secrets
from pathlib import Path

from shared import job_files
from shared.blobs import open_blobs
from shared.fleet import Fleet
from shared.job import Job, Options
from shared.job_store import JobStore, NewJob
from shared.ledger import Ledger
from shared.media import Media
from shared.redis_store import RedisStore
from shared.settings import Settings
from shared.task_queue import CeleryQueue, Dispatcher, make_celery
from shared.transcript import Transcript
from tests.support.waiting import wait_until

MODEL = "synthetic-en"
SAMPLES = Path(__file__).parents[2] / "models" / "samples"


class Service:
    def __init__(self, settings: Settings, store: RedisStore) -> None:
        self.settings = settings
        self.store = store
        self.jobs = JobStore(store)
        self.ledger = Ledger(store, settings.lease_s)
        self.fleet = Fleet(store)
        self.blobs = open_blobs(settings)
        celery = make_celery(settings.broker)
        self.dispatcher = Dispatcher(self.ledger, self.fleet, CeleryQueue(celery), settings.hint_s)

    def submit(self, path: Path, **options: object) -> str:
        """As the API does it: bytes, manifest, record, hint."""
        job_id = f"job_{secrets.token_hex(8)}"
        content = path.read_bytes()
        self.blobs.write(job_files.media(job_id), content)
        new = NewJob(
            job_id,
            "default",
            Options(**({"model": MODEL} | options)),  # type: ignore[arg-type]
            Media(path.name, len(content), hashlib.sha256(content).hexdigest()),
        )
        job_files.write_manifest(self.blobs, new)
        self.jobs.create(new)
        self.dispatcher.dispatch()
        return job_id

    def ended(self, job_id: str, timeout_s: float = 120) -> Job:
        """The job, once it has ended: however long that takes, as long as it gets on within `timeout_s`."""
        job = self.jobs.get(job_id)
        while not job.status.is_terminal:
            before, job = job, self.jobs.wait(job_id, None, timeout_s, until_end=True)
            assert job != before, job
        return job

    def transcript(self, job_id: str) -> Transcript:
        return Transcript.from_json(self.blobs.read(job_files.transcript(job_id)))

    def wait_for_windows(self, job_id: str, least: int) -> None:
        wait_until(lambda: len(self.jobs.windows(job_id)) >= least, 120)
