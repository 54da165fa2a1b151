"""What the steps of a job work with, put together once in `app.py`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from shared.blob_store import BlobStore
from shared.endings import Endings
from shared.errors import NoWorker
from shared.fleet import Fleet
from shared.job_store import JobStore
from shared.ledger import DELIVER_QUEUE, FETCH_QUEUE, LONG_PREPARE_QUEUE, PREPARE_QUEUE, Ledger
from shared.models import ModelCard, long_queue_of, queue_of
from shared.receivers import Receivers
from shared.settings import Settings
from shared.task_queue import Dispatcher, Messages
from shared.tracing import OFF, Tracer
from worker.delivery import Sender
from worker.engine.engine import Engine
from worker.fetcher import Fetcher
from worker.leases import Leases
from worker.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Context:
    """`engines` holds, by model name, each loaded model's engine and card; `fetchers`, by the scheme of an
    address, who gets a recording from there; `guards` are the decoder's. `webhook_secrets` are asked for
    at each message: they may be changed meanwhile."""

    name: str
    settings: Settings
    blobs: BlobStore
    jobs: JobStore
    ledger: Ledger
    endings: Endings
    fleet: Fleet
    dispatcher: Dispatcher
    messages: Messages
    leases: Leases
    engines: Mapping[str, tuple[Engine, ModelCard]]
    sender: Sender
    webhook_secrets: Callable[[], tuple[str, ...]]
    receivers: Receivers
    fetchers: Mapping[str, Fetcher] = field(default_factory=dict)
    metrics: Metrics = field(default_factory=Metrics)
    tracer: Tracer = OFF
    guards: tuple[str, ...] = ()

    def engine(self, model: str) -> tuple[Engine, ModelCard]:
        """Raises NoWorker when another worker must do this part."""
        if model not in self.engines:
            raise NoWorker(f"This worker does not serve {model}.")
        return self.engines[model]

    def card(self, model: str) -> ModelCard:
        """The model's card, wherever it is loaded. Raises NoWorker when it is nowhere at the moment."""
        if model in self.engines:
            return self.engines[model][1]
        for worker in self.fleet.live():
            for card in worker.models:
                if card.name == model:
                    return card
        raise NoWorker(f"No worker serves {model} at the moment.")

    @property
    def slots(self) -> dict[str, int]:
        """How many steps of each queue this worker takes at once. Lanes for long work have their own, so
        that short work never waits behind it."""
        settings = self.settings
        lanes = {
            PREPARE_QUEUE: settings.prepare_slots,
            LONG_PREPARE_QUEUE: settings.prepare_slots,
            DELIVER_QUEUE: settings.deliver_slots,
        }
        if settings.fetch_slots:
            lanes[FETCH_QUEUE] = settings.fetch_slots
        for model in self.engines:
            lanes |= {queue_of(model): settings.part_slots, long_queue_of(model): settings.part_slots}
        return lanes
