"""The decoder's step in few shapes and in buffers that stay, so that a card can play it back as one graph.

A step is hundreds of small kernels, and to call them one by one takes a card's host longer than the card.
Rows are filled up to the next of a few numbers, the length to a multiple of `LENGTH`. A shape without a graph
is computed as ever: so it is on a processor, where the tests run it.
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from shared.log import get_logger
from worker.engine.text_decoder import Decoder

LENGTH = 64
"""Of the text that a step looks back at. Longer than it need be, it is masked."""

Graph = tuple[Callable[[], None], Tensor]
"""Plays a step back, and where its logits are then."""

Capture = Callable[[Callable[[], Tensor]], Graph]

_log = get_logger()


def on_card() -> Capture:
    """What is captured together lives in the same memory: it is played one after the other."""
    pool = torch.cuda.graph_pool_handle()

    def captured(compute: Callable[[], Tensor]) -> Graph:
        # Once beforehand: what picks kernels or takes memory on first use cannot be captured.
        compute()
        graph = torch.cuda.CUDAGraph()
        # Threads of other models may do on the card what is forbidden in a capture.
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            logits = compute()
        return graph.replay, logits

    return captured


class StepGraphs:
    """Of `decoder`, whose rows are taken from the first on. Not thread-safe."""

    def __init__(self, decoder: Decoder, device: torch.device) -> None:
        self._decoder = decoder
        self._device = device
        self._card = on_card if device.type == "cuda" else None
        self._graphs: dict[tuple[int, int], Graph] = {}
        self._are_proven = False
        self._make_room()

    @property
    def positions(self) -> int:
        return self._decoder.positions

    def step(self, tokens: Tensor, positions: Tensor, longest: int, first: int = 0) -> Tensor:
        """As the decoder's. The logits are good until the next step."""
        if first:
            return self._decoder.step(tokens, positions, longest, first)
        count = len(tokens)
        shape = self._rows(count), self._length(longest)
        self._tokens[:count] = tokens
        self._places[:count] = positions
        # Rows that fill up leave something at the last position, where each row writes before it reads.
        self._places[count : shape[0]].fill_(self.positions - 1)
        if shape not in self._graphs:
            return self._computed(*shape)[:count]
        play, logits = self._graphs[shape]
        play()
        return logits[:count]

    def prove(self, write: Callable[[], object]) -> None:
        """On a card steps are played back from now on, if `write`, which makes many of them, gives the same
        with and without. Raises what it raises without."""
        if self._card is None:
            return
        computed = write()
        self._capture()
        try:
            self._are_proven = write() == computed
        except (RuntimeError, MemoryError) as error:
            self._refuse(type(error).__name__)
            return
        if not self._are_proven:
            self._refuse("the text is another")

    def forget(self) -> None:
        """The caches are about to be others, and what was captured reads the old ones."""
        self._graphs.clear()

    def resized(self) -> None:
        self._make_room()
        if self._are_proven:
            self._capture()

    @torch.inference_mode()
    def _capture(self) -> None:
        """All shapes, in the order in which the smaller ones find room in the memory of the larger."""
        if self._card is None:
            return
        try:
            captured = self._card()
            for shape in self._shapes():
                self._graphs[shape] = captured(partial(self._computed, *shape))
        except RuntimeError as error:
            self._refuse(type(error).__name__)

    def _refuse(self, reason: str) -> None:
        """From now on everything is computed as ever."""
        _log.warning("step_graphs_refused", reason=reason)
        self._card = None
        self._graphs.clear()

    def _make_room(self) -> None:
        self._tokens = torch.zeros(self._decoder.slots, dtype=torch.long, device=self._device)
        self._places = torch.zeros_like(self._tokens)

    def _computed(self, rows: int, length: int) -> Tensor:
        return self._decoder.step(self._tokens[:rows], self._places[:rows], longest=length)

    def _shapes(self) -> Iterator[tuple[int, int]]:
        """The largest first: the smaller ones live in their memory."""
        numbers = sorted({self._rows(count) for count in range(1, self._decoder.slots + 1)}, reverse=True)
        lengths = sorted({self._length(one) for one in range(1, self.positions + 1)}, reverse=True)
        return ((rows, length) for rows in numbers for length in lengths)

    def _rows(self, count: int) -> int:
        """The next power of two, or all."""
        return min(1 << (count - 1).bit_length(), self._decoder.slots)

    def _length(self, longest: int) -> int:
        return min(-(-longest // LENGTH) * LENGTH, self.positions)
