"""The memory allocator a worker should run on, as environment variables.

glibc gives large blocks back to the system after every operation, and page faults then cost half of the
model's time. `python -m deploy.allocator` prints the variables for a shell.
"""

import platform
from collections.abc import Mapping
from pathlib import Path

_MACHINE = platform.machine()
JEMALLOC_PATHS = tuple(
    Path(folder, "libjemalloc.so.2")
    for folder in (
        f"/usr/lib/{_MACHINE}-linux-gnu",
        f"/lib/{_MACHINE}-linux-gnu",
        "/usr/lib64",
        "/usr/local/lib",
        "/usr/lib",
    )
)
JEMALLOC = {
    # Blocks of any size are kept for ten seconds before they go back: long enough to be used again by the
    # next window, short enough that a long file does not hold memory for ever.
    "MALLOC_CONF": "oversize_threshold:0,background_thread:true,dirty_decay_ms:10000,muzzy_decay_ms:10000",
}
GLIBC = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "200000000000",
    "MALLOC_TOP_PAD_": "268435456",
}


def environment(given: Mapping[str, str], paths: tuple[Path, ...] = JEMALLOC_PATHS) -> dict[str, str]:
    """What to add to `given`; nothing when the user has chosen an allocator."""
    if any(name in given for name in ("LD_PRELOAD", "MALLOC_CONF", *GLIBC)):
        return {}
    if platform.system() != "Linux":
        return {}
    found = next((path for path in paths if path.exists()), None)
    return {"LD_PRELOAD": str(found), **JEMALLOC} if found else dict(GLIBC)


if __name__ == "__main__":
    print(" ".join(f"{name}={value}" for name, value in environment({}).items()))
