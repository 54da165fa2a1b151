"""Which graphics cards a process sees, by the environment that CUDA reads."""

import os

from shared.devices import AUTO, CPU, card_number
from shared.settings import SettingsError


def see_only(device: str) -> None:
    """Hides all cards from this process but its own, which is then CUDA's first. To be called before torch
    looks: a context that some library opens on a card it was not meant for takes memory there for good.

    Raises SettingsError when there is no such card.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    number = card_number(device)
    if device == CPU:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif visible is None:
        # CUDA counts the fastest card first, unless told to count as nvidia-smi does.
        os.environ |= {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": str(number)}
    else:
        cards = [card for card in visible.split(",") if card.strip()]
        if number < len(cards):
            os.environ["CUDA_VISIBLE_DEVICES"] = cards[number]
        elif device != AUTO:
            raise SettingsError(
                f"ANANSE_DEVICE: there is no {device}, CUDA_VISIBLE_DEVICES shows {len(cards)} of the cards."
            )
