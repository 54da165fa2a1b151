"""The worker processes of this machine: one for each device, with its models and its share of the cores."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deploy import allocator
from deploy.cards import VISIBLE, visible_cards
from deploy.errors import EXIT_CONFIGURATION, StartError
from deploy.processes import Service
from shared.devices import AUTO, CPU, CUDA, card_number, parse_devices, usable_cores
from shared.models import models_on, parse_models
from shared.settings import Settings

CREW = "worker"

_HAND_OVER_S = 5.0
"""A worker that has handed its work back still has to leave."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one worker runs; `threads` are those of its models."""

    device: str
    threads: int


def crew(
    settings: Settings, environment: Mapping[str, str], module: Sequence[str] = ("worker",)
) -> tuple[Service, ...]:
    """`module` is what each worker runs. Raises StartError for a device that is not there or has no model."""
    cards = visible_cards(environment) if _wants_cards(settings) else ()
    devices = devices_of(settings, len(cards))
    _check_placement(settings, devices)
    places = places_of(devices, usable_cores(), settings.threads)
    common = {**environment, **allocator.environment(environment)}
    if cards:
        common[VISIBLE] = ",".join(cards)
    return tuple(
        Service(
            f"{CREW}-{number}" if len(places) > 1 else CREW,
            (sys.executable, "-m", *module),
            {**common, **_own_settings(settings, place, number)},
            grace_s=settings.stop_grace_s + _HAND_OVER_S,
            crew=CREW,
        )
        for number, place in enumerate(places)
    )


def devices_of(settings: Settings, cards: int) -> tuple[str, ...]:
    """One for each worker, each `cpu` or `cuda:N`. Raises StartError for a card that is not there."""
    every_card = tuple(f"{CUDA}:{number}" for number in range(cards))
    if "devices" not in settings.model_fields_set and settings.device != AUTO:
        named: tuple[str, ...] = (f"{CUDA}:0" if settings.device == CUDA else settings.device,)
    else:
        named = parse_devices(settings.devices)
    if named == (AUTO,):
        return every_card or (CPU,)
    devices = tuple(device for name in named for device in (every_card if name == CUDA else (name,)))
    missing = next((one for one in devices if one != CPU and card_number(one) >= cards), None)
    if missing or not devices:
        raise _wrong(
            f"there is no {missing or CUDA}: NVIDIA cards that can be used here: {cards}; "
            "correct ANANSE_DEVICES, or install the driver and a torch with CUDA"
        )
    return devices


def places_of(devices: Sequence[str], cores: int, threads: int = 0) -> tuple[Place, ...]:
    """A card's worker needs one core to feed it; the workers on the processor share the rest. `threads` is
    what the settings say, 0 for nothing. Raises StartError when they would be more than there are cores."""
    on_cpu = devices.count(CPU)
    spare = max(on_cpu, cores - (len(devices) - on_cpu))
    if on_cpu > 1 and on_cpu * max(threads, 1) > cores:
        raise _wrong(
            f"{on_cpu} workers on the processor with {max(threads, 1)} threads each are too many for "
            f"{cores} cores: correct ANANSE_DEVICES or ANANSE_THREADS"
        )
    shares = iter(spare // on_cpu + (number < spare % on_cpu) for number in range(on_cpu))
    return tuple(Place(device, threads or (next(shares) if device == CPU else 1)) for device in devices)


def _own_settings(settings: Settings, place: Place, number: int) -> dict[str, str]:
    """What is different for each worker."""
    own = {"ANANSE_DEVICE": place.device, "ANANSE_THREADS": str(place.threads)}
    if settings.metrics_port:
        own["ANANSE_METRICS_PORT"] = str(settings.metrics_port + number)
    return own


def _wants_cards(settings: Settings) -> bool:
    named = settings.devices if "devices" in settings.model_fields_set else settings.device
    return any(name != CPU for name in parse_devices(named))


def _check_placement(settings: Settings, devices: Sequence[str]) -> None:
    models = parse_models(settings.models)
    idle = next((device for device in devices if not models_on(models, device)), None)
    if idle:
        raise _wrong(
            f"ANANSE_MODELS places no model on {idle}: place one there, or leave it out of ANANSE_DEVICES"
        )
    homeless = next((one for one in models if not any(models_on([one], device) for device in devices)), None)
    if homeless:
        raise _wrong(
            f"ANANSE_MODELS places {homeless.name} on {'+'.join(homeless.devices)}, "
            f"but the workers here are on {', '.join(devices)}"
        )


def _wrong(sentence: str) -> StartError:
    return StartError(sentence, EXIT_CONFIGURATION)
