"""What `ananse doctor` tells: a checkpoint fetched, examined, loaded and probed as by a worker."""

from dataclasses import asdict
from typing import Any

from shared.models import parse_models
from shared.settings import load as load_settings
from worker.engine.loading import load
from worker.engine.values import ModelUnavailable


def report(name: str) -> dict[str, Any]:
    """`usable`, with `reason` where it is not, else with what the worker would publish of it."""
    settings = load_settings()
    try:
        source, *more = parse_models(name)
        if more:
            raise ValueError("one model at a time")
        loaded = load(
            source,
            device=settings.device,
            dtype=settings.dtype,
            threads=settings.threads,
            hf_endpoint=settings.hf_endpoint,
        )
    except (ModelUnavailable, ValueError) as error:
        return {"model": name, "usable": False, "reason": str(error)}
    card = loaded.card
    return {
        "model": card.name,
        "usable": True,
        "source": card.source,
        "revision": card.revision,
        "device": card.device,
        "dtype": card.dtype,
        "parameters": card.parameters,
        "abilities": asdict(card.abilities),
    }
