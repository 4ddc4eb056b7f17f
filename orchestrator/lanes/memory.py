"""How much memory a trial needs while it trains, above the backbone that it is attached to."""

from __future__ import annotations

import ctypes
import re
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

from methods._base import Attached

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_CLEAR_PEAK = "5"  # proc(5): reset the peak of resident memory to what is resident now


class MemoryGauge:
    """The most memory that a trial has needed above the backbone that it is attached to, in bytes.

    On CUDA that is the allocator's own peak. Elsewhere it is the process's resident memory without the files that it
    maps (so without the shared backbone). Linux keeps the peak of that by itself, which sees what is there for a moment
    only, in the middle of a backward pass; where it cannot be had, memory is read whenever :meth:`note` is called:
    after a forward pass, while all activations are there, and after a backward pass, while all gradients are.

    What is compared with stood when the gauge was made, so that other trials which the lane keeps are not counted;
    those that train in the same pack are.

    Args:
        held: what the trial itself had in memory already, in bytes: nothing when it is new, parameters and optimizer
            state when it goes on.
    """

    def __init__(self, held: int = 0) -> None:
        _release()
        self._base = _in_use() - held
        self.peak = float(held)

    def begin(self) -> None:
        """What was needed up to now was for something else."""
        _forget_peak()

    def note(self) -> None:
        """Look now, and at all since :meth:`begin`."""
        self.peak = max(self.peak, float(_most_in_use() - self._base))


def held_bytes(attached: Attached, optimizer: torch.optim.Optimizer) -> int:
    """What a trial keeps between two steps: trainable parameters and their optimizer state."""
    state = (value for own in optimizer.state.values() for value in own.values() if isinstance(value, Tensor))
    return sum(tensor.numel() * tensor.element_size() for tensor in (*attached.trainable().values(), *state))


def _in_use() -> int:
    if torch.cuda.is_available():
        return int(torch.cuda.memory_allocated())
    resident, mapped = _resident()
    return resident - mapped


def _most_in_use() -> int:
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return max(_in_use(), (_peak() or 0) - _resident()[1])


def _resident() -> tuple[int, int]:
    """Bytes of this process's memory, and how many of those are files."""
    memory = psutil.Process().memory_info()
    return int(memory.rss), int(getattr(memory, "shared", 0))


def _peak() -> int | None:
    """The most that was resident, files included, since it was last forgotten; none where the system does not tell."""
    if not _forgets():
        return None
    found = re.search(r"VmHWM:\s*(\d+) kB", STATUS.read_text())
    return 1024 * int(found[1]) if found else None


def _forget_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    elif _forgets():
        CLEAR.write_text(_CLEAR_PEAK)


@cache
def _forgets() -> bool:
    """Whether the system lets a process forget its peak: Linux does, where nothing forbids it."""
    try:
        CLEAR.write_text(_CLEAR_PEAK)
    except OSError:
        return False
    return True


def _release() -> None:
    """Let go of what former trials have left, which would otherwise serve this one unseen."""
    if not torch.cuda.is_available() and (trim := _trim()):
        trim(0)
    _forget_peak()


@cache
def _trim() -> Any:
    """The C library's call that gives freed memory back to the system; none where it has no such call."""
    try:
        return getattr(ctypes.CDLL(None), "malloc_trim", None)
    except (OSError, TypeError):
        return None
