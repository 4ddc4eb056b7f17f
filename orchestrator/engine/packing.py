"""Packed passes: several trials go through the frozen layers in one pass, whatever their methods.

All trials of a lane pass the same frozen layers in the same order. Each trial's part runs in a greenlet. At a
frozen layer it hands over its rows and waits; when every trial waits or has finished, the earliest layer that anyone
waits at runs once, for all who wait there. Rows are ``batch x tokens``, so no padding is needed. Where the parts are
forwards of a step, the losses are summed, so that one backward pass does the same for the gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from greenlet import getcurrent, greenlet
from torch import Tensor

from orchestrator.backbone.frozen import FrozenLinear, override_matmul
from orchestrator.engine.matmul import shared_matmul
from orchestrator.engine.thread_state import ThreadState, ThreadStates, switching

ResultT = TypeVar("ResultT")


@dataclass
class Turn(Generic[ResultT]):
    """One trial's part in a packed pass: what it came to, or what it raised."""

    call: Callable[[], ResultT]
    result: ResultT | None = None
    error: Exception | None = None


def in_lockstep(calls: Sequence[Callable[[], ResultT]]) -> list[Turn[ResultT]]:
    """Run the calls in lockstep.

    Every trial keeps its own random stream, gradient and inference mode, and autocast: what a call has left at a
    frozen layer is put back when it goes on. An error in one call ends that one alone. All of them train, or none.

    Raises:
        Exception: what a shared product raised; no call is then half-way.
    """
    turns = [Turn(call) for call in calls]
    with switching() as states:
        hub = _Hub(turns, states)
        with override_matmul(hub.product):
            hub.run()
    return turns


class _Hub:
    def __init__(self, turns: Sequence[Turn[Any]], states: ThreadStates) -> None:
        self._turns, self._switch = turns, states
        self._greenlets = [greenlet(turn.call) for turn in turns]
        self._own = ThreadState.here()
        self._states = [self._own] * len(turns)
        self._waiting: dict[int, tuple[FrozenLinear, Tensor, Tensor | None]] = {}
        self._main = getcurrent()

    def product(self, layer: FrozenLinear, x: Tensor, bias: Tensor | None) -> Tensor:
        """What a frozen layer does in a packed pass: wait for the others."""
        if getcurrent() is self._main:
            return layer.product(x, bias)
        if torch.is_grad_enabled():
            y: Tensor = self._main.switch(layer, x, bias)
            return y
        without: Tensor = self._main.switch(layer, x.detach(), bias)  # the product itself may be others' too
        return without.detach()

    def run(self) -> None:
        """Until every call has ended."""
        try:
            for k in range(len(self._turns)):
                self._resume(k)
            while self._waiting:
                self._serve()
        finally:
            self._switch.enter(self._own)
            for one in self._greenlets:
                if one:
                    one.throw()

    def _serve(self) -> None:
        """Run the earliest layer that anyone waits at, once for all who wait there."""
        self._switch.enter(self._own)
        layer = min((layer for layer, *_ in self._waiting.values()), key=lambda found: found.position)
        here = [k for k, (other, *_) in self._waiting.items() if other.frozen is layer.frozen]
        inputs, biases = zip(*(self._waiting.pop(k)[1:] for k in here), strict=True)
        for k, product in zip(here, shared_matmul(layer.frozen, layer.compute_dtype, inputs, biases), strict=True):
            self._resume(k, product)

    def _resume(self, k: int, *value: Tensor) -> None:
        """Give trial ``k`` the turn until it waits again, ends or raises."""
        turn = self._turns[k]
        self._switch.enter(self._states[k])
        try:
            answer = self._greenlets[k].switch(*value)
        except Exception as error:  # the trial's own; its neighbours go on
            turn.error = error
            return
        finally:
            self._states[k] = ThreadState.here()
        if self._greenlets[k].dead:
            turn.result = answer
        else:
            self._waiting[k] = answer
