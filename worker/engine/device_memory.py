"""Memory of the graphics cards this process has used."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """`allocated` and `reserved` are this process's, `used` everybody's."""

    device: str
    allocated_bytes: int
    reserved_bytes: int
    used_bytes: int
    total_bytes: int


def device_memory() -> tuple[DeviceMemory, ...]:
    """Cards this process has nothing on are left out: to look at them would take memory there."""
    indices = range(torch.cuda.device_count())
    return tuple(_of(index) for index in indices if torch.cuda.memory_reserved(index))


def _of(index: int) -> DeviceMemory:
    free, total = torch.cuda.mem_get_info(index)
    return DeviceMemory(
        device=f"cuda:{index}",
        allocated_bytes=torch.cuda.memory_allocated(index),
        reserved_bytes=torch.cuda.memory_reserved(index),
        used_bytes=total - free,
        total_bytes=total,
    )
