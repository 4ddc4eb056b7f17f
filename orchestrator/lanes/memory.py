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
_TOLD = ["arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"]
_CLEAR_PEAK = "5"  # proc(5): reset the peak of resident memory to what is resident now


class MemoryGauge:
    """The most memory that a trial has needed above the backbone that it is attached to, in bytes.

    On CUDA that is the allocator's own peak. Elsewhere it is what the C library has handed out, which is not what is
    resident: heaps keep much of what was freed, and files are mapped, the backbone among them. It is read whenever
    :meth:`note` is called: after a forward pass, while all activations are there, and after a backward pass. What is
    there for a moment only, such as the gradient of a language model's logits, is seen by the peak of resident memory,
    which Linux keeps: by how much that is above what was resident when the forward pass had ended. Where the C library
    or the system does not tell, resident memory without files stands in.

    All is compared with what stood when the gauge was made, so that other trials which the lane keeps are not counted;
    those that train in the same pack are.

    Args:
        held: what the trial itself had in memory already, in bytes: nothing when it is new, parameters and optimizer
            state when it goes on.
    """

    def __init__(self, held: int = 0) -> None:
        self._base = _in_use() - held
        self._mark = _resident()
        self.peak = float(held)
        self.begin()

    def begin(self) -> None:
        """A step begins; what was needed up to now was for something else."""
        _forget_peak()
        self._marked: int | None = None

    def note(self) -> None:
        """Look now, and at what there was for a moment since :meth:`begin`."""
        now = _in_use()
        if self._marked is None:
            self._marked, self._mark = now, _resident()
        most = _most_in_use(self._marked, self._mark)
        self.peak = max(self.peak, float(max(now, most) - self._base))


def held_bytes(attached: Attached, optimizer: torch.optim.Optimizer) -> int:
    """What a trial keeps between two steps: trainable parameters and their optimizer state."""
    state = (value for own in optimizer.state.values() for value in own.values() if isinstance(value, Tensor))
    return sum(tensor.numel() * tensor.element_size() for tensor in (*attached.trainable().values(), *state))


def _in_use() -> int:
    """Bytes."""
    if torch.cuda.is_available():
        return int(torch.cuda.memory_allocated())
    if (handed_out := _c_library("mallinfo2")) is not None:
        told = handed_out()
        return int(told.uordblks + told.hblkhd)
    memory = psutil.Process().memory_info()
    return int(memory.rss - getattr(memory, "shared", 0))


def _most_in_use(marked: int, mark: int) -> int:
    """The most since the peak was forgotten, if ``marked`` bytes were in use when ``mark`` bytes were resident."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return marked + max(0, (_peak() or 0) - mark)


def _resident() -> int:
    return int(psutil.Process().memory_info().rss)


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


class _Handed(ctypes.Structure):
    """What ``mallinfo2`` tells, see mallinfo(3)."""

    _fields_ = [(name, ctypes.c_size_t) for name in _TOLD]  # as ctypes wants it


@cache
def _c_library(call: str) -> Any:
    """A call of the C library; none where it has no such call."""
    try:
        found = getattr(ctypes.CDLL(None), call, None)
    except (OSError, TypeError):
        return None
    if found is not None:
        found.restype = _Handed
    return found
