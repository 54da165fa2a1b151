"""Client of Ananse: `Client` waits, `AsyncClient` awaits, `webhooks.verify` checks who calls back."""

from ananse_client import errors, webhooks
from ananse_client.aio import AsyncClient
from ananse_client.client import Client
from ananse_client.errors import AnanseError, JobError, RequestError, ServiceError, Unavailable, Unreachable
from ananse_client.flows import Patience
from ananse_client.shapes import Event, Job, Model, Segment, Transcript, Word

__all__ = [
    "AnanseError",
    "AsyncClient",
    "Client",
    "Event",
    "Job",
    "JobError",
    "Model",
    "Patience",
    "RequestError",
    "Segment",
    "ServiceError",
    "Transcript",
    "Unavailable",
    "Unreachable",
    "Word",
    "errors",
    "webhooks",
]
