"""How much memory a trial needs while it trains, above the backbone that it is attached to."""

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

PAUSE = 0.002
CLOSELY = 2
_FIELDS = ["arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"]


class MemoryGauge:
    """The most memory that a trial has needed above the backbone that it is attached to, in bytes.

    On CUDA that is the allocator's own peak. Elsewhere it is what the C library has handed out, which is not what is
    resident: heaps keep much of what was freed, and files are mapped, the backbone among them. (Where the C library
    does not tell, resident memory without files stands in.) It is read at every :meth:`note`, and all the time during
    the first two steps, since the optimizer's state is there from the second on, and those with the longest batch yet:
    much is there for a moment only, such as the gradient of a language model's logits.

    All is compared with what stood when the gauge was made, so that other trials which the lane keeps are not counted;
    those that train in the same pack are.

    Args:
        held: what the trial itself had in memory already, in bytes: nothing when it is new, parameters and optimizer
            state when it goes on.
    """

    def __init__(self, held: int = 0) -> None:
        self._base = _in_use() - held
        self._steps = self._longest = 0
        self._seeing = threading.Lock()
        self.peak = float(held)
        self.begin()

    def begin(self, tokens: int = 0) -> None:
        """What was needed up to now was for something else.

        Args:
            tokens: of the batch of a step that begins; 0 where none does.
        """
        _watch.leave(self)
        self._steps += tokens > 0
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        elif tokens and (self._steps <= CLOSELY or tokens > self._longest):
            self._longest = max(self._longest, tokens)
            _watch.join(self)

    def note(self) -> None:
        """Look now."""
        self.see(_most_in_use())

    def end(self) -> None:
        """The step is over, and was noted."""
        _watch.leave(self)

    def see(self, in_use: int) -> None:
        """So many bytes are in use."""
        with self._seeing:
            self.peak = max(self.peak, float(in_use - self._base))


class _Watch:
    """Looks again and again, in a thread of its own, while any gauge wants to know."""

    def __init__(self) -> None:
        self._gauges: WeakSet[MemoryGauge] = WeakSet()
        self._joining = threading.Lock()
        self._looking = False

    def join(self, gauge: MemoryGauge) -> None:
        """Tell this one from now on."""
        with self._joining:
            self._gauges.add(gauge)
            if not self._looking:
                self._looking = True
                threading.Thread(target=self._look, daemon=True).start()

    def leave(self, gauge: MemoryGauge) -> None:
        """Tell this one no longer."""
        with self._joining:
            self._gauges.discard(gauge)

    def _look(self) -> None:
        while self._tell():
            time.sleep(PAUSE)

    def _tell(self) -> bool:
        with self._joining:
            in_use = _in_use()
            for gauge in self._gauges:
                gauge.see(in_use)
            self._looking = bool(self._gauges)
            return self._looking


_watch = _Watch()


def held_bytes(attached: Attached, optimizer: torch.optim.Optimizer) -> int:
    """What a trial keeps between two steps: trainable parameters and their optimizer state."""
    state = (value for own in optimizer.state.values() for value in own.values() if isinstance(value, Tensor))
    return sum(tensor.numel() * tensor.element_size() for tensor in (*attached.trainable().values(), *state))


def _most_in_use() -> int:
    """Since the peak was forgotten on CUDA, now elsewhere."""
    return int(torch.cuda.max_memory_allocated()) if torch.cuda.is_available() else _in_use()


def _in_use() -> int:
    if torch.cuda.is_available():
        return int(torch.cuda.memory_allocated())
    if (handed_out := _handed_out()) is not None:
        told = handed_out()
        return int(told.uordblks + told.hblkhd)
    memory = psutil.Process().memory_info()
    return int(memory.rss - getattr(memory, "shared", 0))


class _Told(ctypes.Structure):
    """What ``mallinfo2`` says: see mallinfo(3)."""

    _fields_ = [(name, ctypes.c_size_t) for name in _FIELDS]


@cache
def _handed_out() -> Any:
    """The C library's call that tells what it has handed out; none where it has no such call."""
    try:
        found = ctypes.CDLL(None).mallinfo2
    except (OSError, TypeError, AttributeError):
        return None
    found.restype = _Told
    return found
