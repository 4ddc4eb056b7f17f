"""The memory that a trial needs while it trains, above the backbone that it is attached to."""

from __future__ import annotations

import ctypes
import threading
import time
from functools import cache
from typing import Any
from weakref import WeakSet

import psutil
import torch
from torch import Tensor

from methods.base.spec import Attached
from orchestrator.engine.random_stream import CPU

SAMPLING_INTERVAL_S = 0.002
SAMPLED_FIRST_STEPS = 2


class MemoryGauge:
    """The peak memory of a trial above the backbone that it is attached to, in bytes.

    On CUDA it is the allocator's own peak. On a processor it is the memory that the C library has allocated and not yet
    freed. Resident memory would be wrong: the heap keeps much of what was freed, and mapped files count, the backbone
    among them. (Where the C library does not report its allocations, resident memory without files is used.)

    On a processor it is read at every :meth:`measure`, and every 2 ms during the first two steps (the optimizer's
    state exists from the second on) and the steps with the longest batch so far: much memory is in use for a moment
    only, such as the gradient of a language model's logits.

    The baseline is what was in use when the gauge was made, so that other trials of the lane do not count; those that
    train in the same pack do.

    Args:
        held: bytes that the trial itself already had in memory: 0 when it is new, parameters and optimizer state when
            it continues.
        device: device of the backbone.
    """

    def __init__(self, held: int = 0, device: torch.device = CPU) -> None:
        self._device, self._is_cuda = device, device.type == "cuda"
        self._baseline = (torch.cuda.memory_allocated(device) if self._is_cuda else _bytes_in_use()) - held
        self._steps = self._longest_batch = 0
        self._lock = threading.Lock()
        self.peak = float(held)
        self.begin()

    def begin(self, tokens: int = 0) -> None:
        """Begin a step or an evaluation; a peak that was reached before it does not count.

        Args:
            tokens: tokens of the step's batch; 0 for an evaluation.
        """
        _sampler.remove(self)
        self._steps += tokens > 0
        if self._is_cuda:
            torch.cuda.reset_peak_memory_stats(self._device)
        elif tokens and (self._steps <= SAMPLED_FIRST_STEPS or tokens > self._longest_batch):
            self._longest_batch = max(self._longest_batch, tokens)
            _sampler.add(self)

    def measure(self) -> None:
        """Read the memory in use now; on CUDA, its peak since :meth:`begin`."""
        self.record(torch.cuda.max_memory_allocated(self._device) if self._is_cuda else _bytes_in_use())

    def end(self) -> None:
        """End a step."""
        _sampler.remove(self)

    def record(self, in_use: int) -> None:
        """Raise the peak if the bytes in use exceed it."""
        with self._lock:
            self.peak = max(self.peak, float(in_use - self._baseline))


class _Sampler:
    """Reads the memory in use every 2 ms, in a thread that runs while there are gauges to report to."""

    def __init__(self) -> None:
        self._gauges: WeakSet[MemoryGauge] = WeakSet()
        self._lock = threading.Lock()
        self._running = False

    def add(self, gauge: MemoryGauge) -> None:
        with self._lock:
            self._gauges.add(gauge)
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, daemon=True).start()

    def remove(self, gauge: MemoryGauge) -> None:
        with self._lock:
            self._gauges.discard(gauge)

    def _run(self) -> None:
        while self._sample():
            time.sleep(SAMPLING_INTERVAL_S)

    def _sample(self) -> bool:
        with self._lock:
            in_use = _bytes_in_use()
            for gauge in self._gauges:
                gauge.record(in_use)
            self._running = bool(self._gauges)
            return self._running


_sampler = _Sampler()


def held_bytes(attached: Attached, optimizer: torch.optim.Optimizer) -> int:
    """Return the bytes that a trial holds between two steps: trainable parameters and their optimizer state."""
    states = (value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor))
    return sum(tensor.numel() * tensor.element_size() for tensor in (*attached.trainable().values(), *states))


def free_bytes(device: torch.device) -> int:
    """Return the free memory of a GPU, or the available memory of the machine for a processor."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def available_bytes(device: torch.device) -> int:
    """Return the memory that this process may still allocate; on a GPU, with what PyTorch has reserved and not in use.

    CUDA counts memory that PyTorch keeps for later as taken: after a large step, next to nothing seems to be free.
    """
    if device.type != "cuda":
        return free_bytes(device)
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return free_bytes(device) + int(unused)


def _bytes_in_use() -> int:
    """Return the memory that the process has allocated on the processor."""
    if (mallinfo2 := _mallinfo2()) is not None:
        info = mallinfo2()
        return int(info.uordblks + info.hblkhd)
    memory = psutil.Process().memory_info()
    return int(memory.rss - getattr(memory, "shared", 0))


class _MallInfo2(ctypes.Structure):
    """``struct mallinfo2`` of glibc, see mallinfo(3)."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


@cache
def _mallinfo2() -> Any:
    """Return glibc's ``mallinfo2``, or ``None`` where the C library has no such function."""
    try:
        function = ctypes.CDLL(None).mallinfo2
    except (OSError, TypeError, AttributeError):
        return None
    function.restype = _MallInfo2
    return function
