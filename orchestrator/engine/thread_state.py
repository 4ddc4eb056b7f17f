"""The state that torch keeps per thread: each trial of a pack needs its own, though all run in one thread."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from orchestrator.engine.random_stream import RandomStream

Modes = tuple[bool, bool, bool, tuple[tuple[bool, torch.dtype], ...]]
"""Gradient mode, inference mode, autocast's cache; and autocast's switch and dtype for each kind of device."""


@dataclass(frozen=True, slots=True)
class ThreadState:
    """Gradient mode, inference mode, autocast and random streams of a thread.

    Args:
        device: device that the thread computes on.
        modes: modes of the thread.
        random: random streams; ``None`` where the generators may stay as they are.
    """

    device: torch.device
    modes: Modes
    random: RandomStream | None

    @classmethod
    def capture(cls, device: torch.device, *, random: bool = True) -> ThreadState:
        """Return the present state of this thread, which computes on a device, with or without its random streams."""
        return cls(device, _current_modes(device), RandomStream.capture(device) if random else None)

    def without_random(self) -> ThreadState:
        """Return the same modes, with generators that may stay as they are."""
        return replace(self, random=None)


class ThreadStateSwitch:
    """Sets the thread's state at every switch between trials; made by :func:`switch_thread_states`."""

    def __init__(self) -> None:
        self._inference_guard: Any = None

    def restore(self, state: ThreadState) -> None:
        """Set the thread's state."""
        # A guard that is released restores the inference mode from before it, so release it before anything is set.
        self._inference_guard = None
        if _current_modes(state.device) != state.modes:
            self._inference_guard = _set_modes(state.modes, state.device)
        if state.random:
            state.random.restore()


@contextmanager
def switch_thread_states(device: torch.device) -> Iterator[ThreadStateSwitch]:
    """Allow the thread's state to be switched inside; afterwards it is as before, whatever was set last.

    Args:
        device: device that the thread computes on.
    """
    before = ThreadState.capture(device)
    switch = ThreadStateSwitch()
    try:
        # torch sets inference mode by guards only. This outer guard restores the thread's mode, whatever the guards
        # inside it have left.
        with torch.inference_mode(before.modes[1]):
            switch.restore(before)
            yield switch
            switch.restore(before)
    finally:
        switch.restore(before)


def _current_modes(device: torch.device) -> Modes:
    kinds = _device_kinds(device.type)
    autocast = tuple((torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in kinds)
    return torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_cache_enabled(), autocast


def _set_modes(modes: Modes, device: torch.device) -> Any:
    """Set the modes. Returns the guard of inference mode if that had to change; the mode ends with the guard."""
    gradients, inference, autocast_cache, autocast = modes
    # The guard sets the gradient mode too, so it comes first.
    guard = torch._C._InferenceMode(inference) if torch.is_inference_mode_enabled() != inference else None
    torch.set_grad_enabled(gradients)
    torch.set_autocast_cache_enabled(autocast_cache)
    for kind, (enabled, dtype) in zip(_device_kinds(device.type), autocast, strict=True):
        torch.set_autocast_enabled(kind, enabled)
        torch.set_autocast_dtype(kind, dtype)
    return guard


def _device_kinds(device_type: str) -> tuple[str, ...]:
    return ("cpu", "cuda") if device_type == "cuda" else ("cpu",)
