"""What torch keeps per thread and a forward may change: whoever shares a thread takes it along at every switch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from orchestrator.engine.random_stream import RandomStream

Modes = tuple[bool, bool, bool, tuple[tuple[bool, torch.dtype], ...]]
"""Gradients, inference mode and autocast's cache, on or off; and autocast itself, for each kind of device."""


@dataclass(frozen=True, slots=True)
class ThreadState:
    """Random streams; gradient mode, inference mode and autocast."""

    random: RandomStream
    modes: Modes

    @classmethod
    def here(cls) -> ThreadState:
        """As they stand now."""
        return cls(RandomStream.here(), _modes())


class ThreadStates:
    """Puts one state after another in place; see :func:`switching`."""

    def __init__(self) -> None:
        self._guard: Any = None

    def enter(self, state: ThreadState) -> None:
        """From here on it is as it was there."""
        self._guard = None  # the last guard puts back what it found, which need not be what is wanted now
        if _modes() != state.modes:
            self._guard = _set_modes(state.modes)
        state.random.resume()


@contextmanager
def switching() -> Iterator[ThreadStates]:
    """States may be entered inside; afterwards everything is as before, whatever was entered last."""
    before = ThreadState.here()
    states = ThreadStates()
    try:
        # Inference mode has guards and no switch; this one puts the thread's back, however those inside were left.
        with torch.inference_mode(before.modes[1]):
            states.enter(before)
            yield states
            states.enter(before)
    finally:
        states.enter(before)


def _modes() -> Modes:
    autocast = tuple((torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in _devices())
    return torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_cache_enabled(), autocast


def _set_modes(modes: Modes) -> Any:
    """Returns what must live as long as the modes are to stand: the guard of inference mode, where it differs."""
    gradients, inference, cached, autocast = modes
    # it sets the gradient mode too, so it comes first
    guard = torch._C._InferenceMode(inference) if torch.is_inference_mode_enabled() != inference else None
    torch.set_grad_enabled(gradients)
    torch.set_autocast_cache_enabled(cached)
    for kind, (enabled, dtype) in zip(_devices(), autocast, strict=True):
        torch.set_autocast_enabled(kind, enabled)
        torch.set_autocast_dtype(kind, dtype)
    return guard


@cache
def _devices() -> tuple[str, ...]:
    return ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
