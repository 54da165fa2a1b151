"""Memory as torch runs out of it, and as it is given back."""

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def memory_errors(what: str) -> Iterator[None]:
    """Torch's ways of saying that there is no memory for `what`, as the one of Python."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        raise MemoryError(f"{what} does not fit into the GPU's memory") from error
    except RuntimeError as error:
        # The CPU allocator has no exception class of its own.
        if "can't allocate memory" not in str(error) and "not enough memory" not in str(error):
            raise
        raise MemoryError(f"{what} does not fit into memory") from error


def give_back() -> None:
    """What was let go goes back to the card and to the system, not only to the allocators.

    jemalloc needs no word: it gives back what has not been used for ten seconds.
    """
    gc.collect()
    # Does nothing, and opens no card, where CUDA was never used.
    torch.cuda.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
