"""Devices as an operator names them: `cpu`, `cuda:1`; and the processor's cores that are ours to use."""

import os
import re
from pathlib import Path

AUTO = "auto"
CPU = "cpu"
CUDA = "cuda"

_CARD = re.compile(r"cuda:(0|[1-9][0-9]?)")
_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def check_device(name: str) -> str:
    """`cpu`, `cuda` or `cuda:N`. Raises ValueError, in one sentence."""
    if name not in (CPU, CUDA) and not _CARD.fullmatch(name):
        raise ValueError(f"{name!r} is no device; write cpu, cuda or cuda:0")
    return name


def parse_devices(line: str) -> tuple[str, ...]:
    """Reads `auto`, or devices separated by commas; one named twice is two workers. Raises ValueError."""
    names = tuple(part.strip() for part in line.split(",") if part.strip())
    if not names:
        raise ValueError("at least one device must be named, or auto")
    return names if names == (AUTO,) else tuple(check_device(name) for name in names)


def card_number(device: str) -> int:
    """The card's place among those that are visible; `cuda` is the first."""
    return int(device.partition(":")[2] or 0)


def covers(wanted: str, device: str) -> bool:
    """Whether what is meant for `wanted` may run on `device`: `cuda` is any card."""
    return wanted == device or (wanted == CUDA and device.startswith(CUDA))


def usable_cores(quota: Path = _CPU_QUOTA) -> int:
    """Those this process may run on, and no more than its container is allowed to keep busy."""
    cores = len(os.sched_getaffinity(0))
    try:
        allowed, period = quota.read_text().split()
        return max(1, min(cores, -(-int(allowed) // int(period))))
    except (OSError, ValueError):
        # No control group, or one that is told "max".
        return cores
