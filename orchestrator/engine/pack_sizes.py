"""How many trials step together: as many as memory holds and, where that is to be measured, as gain by it."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import psutil
import torch

SAMPLES = 3
GAIN = 0.97
ROOM = 0.5


class Stepping(Protocol):
    """What is asked of a trial in training.

    Args:
        tokens: of its last batch, padding included; 0 before its first step.
        alone_bytes: what it needed above the backbone in its first step.
    """

    tokens: int
    alone_bytes: float


RunT = TypeVar("RunT", bound=Stepping)


class PackSizes:
    """Groups the trials of a lane for each round of steps.

    The first step of a trial is its own: it shows what memory it needs, and that it works. Then trials step in groups
    of some size. With ``measured``, the lane takes turns between one by one, half of them and all together in its
    first rounds of some number of tokens (to the next power of 2), and stays with what took least time per token; the
    rounds are steps that had to be taken anyway. More than one by one must gain three per cent.

    Args:
        most: trials in a group.
        measured: whether fewer may be better.
        micro_batch_memory: bytes that activations may take at present.
    """

    def __init__(self, most: int, *, measured: bool, micro_batch_memory: Callable[[], float] | None = None) -> None:
        self._most, self._measured, self._micro_batch_memory = most, measured, micro_batch_memory or _free_bytes
        self._costs: dict[tuple[int, int], list[float]] = defaultdict(list)
        self._round: tuple[int, int, int] | None = None

    def groups(self, runs: Sequence[RunT]) -> list[list[RunT]]:
        """Who steps with whom in this round."""
        new, known = [run for run in runs if not run.tokens], [run for run in runs if run.tokens]
        self._round = None
        size = self._size(known) if known else 1
        return [[run] for run in new] + [known[k : k + size] for k in range(0, len(known), size)]

    def note(self, seconds: float) -> None:
        """The round that :meth:`groups` gave is over, every trial in it having stepped."""
        if self._round:
            bucket, size, tokens = self._round
            self._costs[bucket, size].append(seconds / tokens)

    def _size(self, runs: Sequence[Stepping]) -> int:
        most = min(self._most, len(runs), self._fitting(runs))
        if not self._measured or most == 1:
            return most
        tokens = sum(run.tokens for run in runs)
        bucket = (tokens // len(runs)).bit_length()
        sizes = sorted({1, -(-most // 2), most})
        rarest = min(sizes, key=lambda size: len(self._costs[bucket, size]))
        if len(self._costs[bucket, rarest]) < SAMPLES:
            self._round = (bucket, rarest, tokens)
            return rarest
        return self._cheapest(bucket, sizes)

    def _cheapest(self, bucket: int, sizes: Sequence[int]) -> int:
        costs = {size: statistics.median(self._costs[bucket, size]) for size in sizes}
        best = min(sizes, key=lambda size: costs[size])
        return best if costs[best] < GAIN * costs[1] else 1

    def _fitting(self, runs: Sequence[Stepping]) -> int:
        """How many of the largest there is room for, at least one."""
        largest = max(run.alone_bytes for run in runs)
        return max(1, int(self._micro_batch_memory() // largest)) if largest else len(runs)


def _free_bytes() -> float:
    """Half of what is free: other lanes of the node may look at the same time."""
    free = torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else psutil.virtual_memory().available
    return ROOM * float(free)
