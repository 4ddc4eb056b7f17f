"""How many trials step together: as many as fit into memory or, if steps are timed, the fastest number of them."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import torch

from orchestrator.engine.memory import available_bytes
from orchestrator.engine.random_stream import CPU

SAMPLES = 3
"""Rounds in which each pack size is timed."""
GAIN = 0.97
"""Largest time per token, relative to single steps, for which a pack is worth it."""
FREE_MEMORY_FRACTION, OWN_GPU_FRACTION = 0.5, 0.9
"""Share of the free memory that activations may take: other lanes of the node may look at the same time, unless the GPU
is the lane's own."""
DEFAULT_SLOTS = 8
MAX_BATCH_TOKENS = 128
"""Tokens of a trial's batch above which a pack gains nothing, since the batch fills a processor core by itself."""
GPU_MAX_BATCH_TOKENS = 2048
"""The same for a GPU, where small kernels leave most of it idle; not measured yet."""
TRIALS_PER_SLOT = 8


def default_pack_size(
    defaults: Iterable[Mapping[str, Any]], max_length: int, trials: int | None, gpu: bool = False
) -> int:
    """Return the number of slots of a lane where the configuration says ``pack: auto``; 1 where packs gain little.

    Slots are not free: each is one more trial under way that early stopping cannot compare yet, one more process for
    Ray Tune, and a longer wait for the last trials while the other slots are empty.

    Args:
        defaults: default configuration of every study.
        max_length: most tokens in a row.
        trials: most trials that the sweep may start, if it has such a limit.
        gpu: whether lanes have a GPU.
    """
    sizes = [default["batch_size"] for default in defaults if "batch_size" in default]
    tokens = statistics.median(sizes or [1]) * max_length
    if tokens > (GPU_MAX_BATCH_TOKENS if gpu else MAX_BATCH_TOKENS):
        return 1
    return DEFAULT_SLOTS if trials is None else max(1, min(DEFAULT_SLOTS, trials // TRIALS_PER_SLOT))


class SteppingTrial(Protocol):
    """What :class:`PackSizes` reads of a trial.

    Args:
        tokens: tokens of its last batch, padding included; 0 before its first step.
        alone_bytes: bytes that its first step needed above the backbone.
    """

    tokens: int
    alone_bytes: float


RunT = TypeVar("RunT", bound=SteppingTrial)


class PackSizes:
    """Groups the trials of a lane for each round of steps.

    A trial takes its first step alone, which shows how much memory it needs, and that it works. After that, trials
    step in groups of one size. With ``measured``, the lane times three sizes in turn (1, half of the trials, all) in
    its first rounds of about the same number of tokens (to the next power of 2), then stays with the size that took
    the least time per token. These rounds are steps that training needs anyway. A pack must gain at least 3 %.

    Args:
        most: largest number of trials in a group.
        measured: whether to time smaller groups.
        activation_bytes: function that returns the bytes that activations may take now; by default a share of the
            memory that the lane may still allocate.
        device: device of the lane.
        own_gpu: whether no other lane has the lane's GPU.
    """

    def __init__(
        self,
        most: int,
        *,
        measured: bool,
        activation_bytes: Callable[[], float] | None = None,
        device: torch.device = CPU,
        own_gpu: bool = False,
    ) -> None:
        self._most, self._measured = most, measured
        share = OWN_GPU_FRACTION if own_gpu and device.type == "cuda" else FREE_MEMORY_FRACTION
        self._activation_bytes = activation_bytes or (lambda: share * available_bytes(device))
        self._costs: dict[tuple[int, int], list[float]] = defaultdict(list)
        self._round: tuple[int, int, int] | None = None

    def groups(self, runs: Sequence[RunT]) -> list[list[RunT]]:
        """Return the groups of the next round: new trials alone, the others by the chosen size."""
        new, started = [run for run in runs if not run.tokens], [run for run in runs if run.tokens]
        self._round = None
        size = self._size(started) if started else 1
        return [[run] for run in new] + [started[k : k + size] for k in range(0, len(started), size)]

    def record_round(self, seconds: float) -> None:
        """Record how long the last round took, in which every trial made its step."""
        if self._round:
            bucket, size, tokens = self._round
            self._costs[bucket, size].append(seconds / tokens)

    def _size(self, runs: Sequence[SteppingTrial]) -> int:
        most = min(self._most, len(runs), self._fitting_count(runs))
        if not self._measured or most == 1:
            return most
        tokens = sum(run.tokens for run in runs)
        bucket = (tokens // len(runs)).bit_length()
        sizes = sorted({1, -(-most // 2), most})
        # Sizes take turns, so that a machine that becomes slower meanwhile is slower for all of them.
        rarest = min(sizes, key=lambda size: len(self._costs[bucket, size]))
        if len(self._costs[bucket, rarest]) < SAMPLES:
            self._round = (bucket, rarest, tokens)
            return rarest
        return self._cheapest(bucket, sizes)

    def _cheapest(self, bucket: int, sizes: Sequence[int]) -> int:
        costs = {size: statistics.median(self._costs[bucket, size]) for size in sizes}
        best = min(sizes, key=lambda size: costs[size])
        return best if costs[best] < GAIN * costs[1] else 1

    def _fitting_count(self, runs: Sequence[SteppingTrial]) -> int:
        """Return how many trials as large as the largest fit into memory, at least one."""
        largest = max(run.alone_bytes for run in runs)
        return max(1, int(self._activation_bytes() // largest)) if largest else len(runs)
