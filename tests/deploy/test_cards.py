"""Counting cards as CUDA would, without it."""

import subprocess
import sys

import pytest

from deploy.cards import Card, listed, shown

ANSWER = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77)
  MIG 3g.20gb     Device  0: (UUID: MIG-c7384736-a75d-5afc-978f-d2f1294409fd)
  MIG 3g.20gb     Device  1: (UUID: MIG-a28ad590-3fda-56dd-84fc-0a0b96edc58d)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-4200ccc0-2667-d4cb-9137-f932c716232a)
"""
FIRST, SECOND = "GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77", "GPU-4200ccc0-2667-d4cb-9137-f932c716232a"
SLICES = ("MIG-c7384736-a75d-5afc-978f-d2f1294409fd", "MIG-a28ad590-3fda-56dd-84fc-0a0b96edc58d")
CARDS = (Card(FIRST, SLICES), Card(SECOND))


def test_cards_and_their_slices_are_read() -> None:
    assert listed(ANSWER) == CARDS
    assert listed("") == listed("No devices found.\n") == ()


@pytest.mark.parametrize(
    ("visible", "seen"),
    [
        (None, (*SLICES, SECOND)),
        ("", ()),
        ("-1", ()),
        ("1", (SECOND,)),
        ("1,0", (SECOND, FIRST)),
        ("1,2,0", (SECOND,)),
        ("1,1", (SECOND,)),
        ("GPU-42", (SECOND,)),
        (f"{SLICES[1]}, {SECOND}", (SLICES[1], SECOND)),
        ("GPU-", ()),
        ("GPU-none", ()),
    ],
)
def test_what_is_hidden_from_cuda_is_not_counted(visible: str | None, seen: tuple[str, ...]) -> None:
    assert shown(CARDS, visible) == seen


def test_the_launcher_loads_nothing_heavy() -> None:
    code = (
        "import os, sys, deploy.workers, deploy.cards\n"
        "deploy.cards.visible_cards(os.environ)\n"
        "print(*{'torch', 'celery', 'flask', 'numpy', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
