"""What every act works with: the service's own parts over its Redis; the rest is made when asked for."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from deploy import embedded_redis
from shared.blob_store import BlobStore
from shared.blobs import open_blobs
from shared.endings import Endings
from shared.fleet import Fleet
from shared.job_store import JobStore
from shared.ledger import Ledger
from shared.outcomes import Outcomes
from shared.redis_store import RedisStore, connect
from shared.settings import Settings
from shared.survey import Survey

if TYPE_CHECKING:
    from shared.task_queue import Dispatcher


@dataclass(frozen=True, slots=True)
class Desk:
    """`settings` are those of the running service, the ones that `ananse up` made included."""

    settings: Settings
    store: RedisStore
    ledger: Ledger
    fleet: Fleet
    jobs: JobStore
    survey: Survey

    def blobs(self) -> BlobStore:
        return open_blobs(self.settings)

    def endings(self) -> Endings:
        return Endings(self.ledger, Outcomes(self.store, self.blobs()), self.settings)

    def dispatcher(self) -> "Dispatcher":
        # Celery, for the few acts that send hints: `ananse up` goes through this module as well.
        from deploy.admin.hints import Twice  # noqa: PLC0415
        from shared.task_queue import Dispatcher  # noqa: PLC0415

        return Dispatcher(self.ledger, self.fleet, Twice(self.settings.broker), self.settings.hint_s)

    def close(self) -> None:
        self.store.client.close()


def open_desk(settings: Settings) -> Desk:
    """Raises StartError when no Redis answers."""
    settings = as_running(settings)
    embedded_redis.require(settings.redis_url)
    store = RedisStore(connect(settings.redis_url))
    return Desk(
        settings=settings,
        store=store,
        ledger=Ledger(store, settings.lease_s),
        fleet=Fleet(store),
        jobs=JobStore(store),
        survey=Survey(store),
    )


def as_running(settings: Settings) -> Settings:
    """What is left out is where `ananse up` has it."""
    made = {"redis_url": embedded_redis.url_for(settings)}
    if "blob_url" not in settings.model_fields_set:
        made["blob_url"] = f"file://{settings.state_dir.absolute() / 'blobs'}"
    return settings.model_copy(update=made)
