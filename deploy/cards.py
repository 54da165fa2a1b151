"""Which NVIDIA cards this machine has, asked of nvidia-smi: CUDA is not touched for it, and torch not loaded.

Not read from /proc/driver/nvidia: in a container that lists the host's cards.
"""

import importlib.util
import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.errors import EXIT_CONFIGURATION, StartError

VISIBLE = "CUDA_VISIBLE_DEVICES"

_ANSWER_S = 30.0
"""A driver that is not kept awake takes seconds for each card."""

_CARD = re.compile(r"GPU \d+: .*\(UUID: (GPU-[\w-]+)\)")
_SLICE = re.compile(r"\s+MIG .*\(UUID: (MIG-[\w/-]+)\)")


@dataclass(frozen=True, slots=True)
class Card:
    """`slices` are its MIG devices: a card that is cut up is used by its slices alone."""

    uuid: str
    slices: tuple[str, ...] = ()


def visible_cards(environment: Mapping[str, str]) -> tuple[str, ...]:
    """What CUDA will find, each by the name that CUDA_VISIBLE_DEVICES takes. Raises StartError."""
    if not _torch_has_cuda():
        return ()
    return shown(listed(_ask()), environment.get(VISIBLE))


def listed(answer: str) -> tuple[Card, ...]:
    """Reads `nvidia-smi -L`."""
    cards: list[Card] = []
    for line in answer.splitlines():
        if card := _CARD.match(line):
            cards.append(Card(card[1]))
        elif cards and (piece := _SLICE.match(line)):
            cards[-1] = Card(cards[-1].uuid, (*cards[-1].slices, piece[1]))
    return tuple(cards)


def shown(cards: Iterable[Card], visible: str | None) -> tuple[str, ...]:
    """All, or those that `visible` names, up to the first that is not there, as CUDA reads it."""
    cards = tuple(cards)
    if visible is None:
        return tuple(name for card in cards for name in card.slices or (card.uuid,))
    chosen: list[str] = []
    for name in (part.strip() for part in visible.split(",")):
        found = _find(cards, name)
        if found is None or found in chosen:
            break
        chosen.append(found)
    return tuple(chosen)


def _find(cards: tuple[Card, ...], name: str) -> str | None:
    if name.isdecimal():
        number = int(name)
        return cards[number].uuid if number < len(cards) else None
    known = [uuid for card in cards for uuid in (card.uuid, *card.slices)]
    matching = [uuid for uuid in known if name and uuid.startswith(name)]
    return matching[0] if len(matching) == 1 else None


def _ask() -> str:
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=_ANSWER_S)
    except OSError:
        return ""
    except subprocess.TimeoutExpired as error:
        raise StartError(
            f"nvidia-smi is silent for {_ANSWER_S:.0f} s: mend the driver, or set ANANSE_DEVICES=cpu",
            EXIT_CONFIGURATION,
        ) from error
    return done.stdout if done.returncode == 0 else ""


def _torch_has_cuda() -> bool:
    """Whether the installed build can use a card at all; seen from its files."""
    torch = importlib.util.find_spec("torch")
    if torch is None or torch.origin is None:
        return False
    return any(Path(torch.origin).parent.glob("lib/libtorch_cuda.*"))
