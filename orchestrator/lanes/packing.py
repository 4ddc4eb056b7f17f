"""Packed steps: several trials go through the frozen layers in one pass, whatever their methods.

All trials of a lane pass the same frozen layers in the same order. Each trial's forward runs in a greenlet. At a
frozen layer it hands over its rows and waits; when every trial waits or has finished, the earliest layer that anyone
waits at runs once, on the rows of all who wait there. Rows are ``batch x tokens``, so no padding is needed. The
losses are summed, so that one backward pass does the same for the gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from greenlet import getcurrent, greenlet
from torch import Tensor

from orchestrator.backbone.frozen import FrozenLinear, products_by
from orchestrator.lanes.random import RandomStream

Forward = Callable[[], Tensor]


@dataclass
class Turn:
    """One trial's forward within a packed pass: its loss, or what it raised."""

    forward: Forward
    loss: Tensor | None = None
    error: Exception | None = None


def packed_forward(forwards: Sequence[Forward]) -> list[Turn]:
    """Run the forwards in lockstep.

    Every trial keeps its own random stream and gradient mode: what a forward has left at a frozen layer is put back
    when it goes on. An error in one forward ends that one alone.

    Raises:
        Exception: what a shared product raised; no forward is then half-way.
    """
    turns = [Turn(forward) for forward in forwards]
    hub = _Hub(turns)
    with products_by(hub.product):
        hub.run()
    return turns


class _Hub:
    def __init__(self, turns: list[Turn]) -> None:
        self._turns = turns
        self._greenlets = [greenlet(turn.forward) for turn in turns]
        self._random = [RandomStream.here()] * len(turns)
        self._gradients = [torch.is_grad_enabled()] * len(turns)
        self._waiting: dict[int, tuple[FrozenLinear, Tensor]] = {}
        self._main = getcurrent()

    def product(self, layer: FrozenLinear, x: Tensor) -> Tensor:
        """What a frozen layer does in a packed pass: wait for the others."""
        if getcurrent() is self._main:
            return layer.product(x)
        if torch.is_grad_enabled():
            y: Tensor = self._main.switch(layer, x)
            return y
        without: Tensor = self._main.switch(layer, x.detach())  # the product itself may be others' too
        return without.detach()

    def run(self) -> None:
        """Until every forward has ended."""
        try:
            for k in range(len(self._turns)):
                self._resume(k)
            while self._waiting:
                self._serve()
        finally:
            for one in self._greenlets:
                if one:
                    one.throw()

    def _serve(self) -> None:
        """Run the earliest layer that anyone waits at, once for all who wait there."""
        layer = min((layer for layer, _ in self._waiting.values()), key=lambda found: found.position)
        here = [k for k, (other, _) in self._waiting.items() if other.frozen is layer.frozen]
        inputs = [self._waiting.pop(k)[1] for k in here]
        if len(here) == 1:
            self._resume(here[0], layer.product(inputs[0]))
            return
        rows = [x.reshape(-1, x.shape[-1]) for x in inputs]
        common = rows[0].dtype if all(r.dtype == rows[0].dtype for r in rows) else torch.float32
        out = layer.product(torch.cat([r.to(common) for r in rows]))
        for k, x, part in zip(here, inputs, out.split([len(r) for r in rows]), strict=True):
            self._resume(k, part.reshape(*x.shape[:-1], -1).to(x.dtype))

    def _resume(self, k: int, *value: Tensor) -> None:
        """Give trial ``k`` the turn until it waits again, ends or raises."""
        turn, mine, gradients = self._turns[k], RandomStream.here(), torch.is_grad_enabled()
        self._random[k].resume()
        torch.set_grad_enabled(self._gradients[k])
        try:
            answer = self._greenlets[k].switch(*value)
        except Exception as error:  # the trial's own; its neighbours go on
            turn.error = error
            return
        finally:
            self._random[k], self._gradients[k] = RandomStream.here(), torch.is_grad_enabled()
            mine.resume()
            torch.set_grad_enabled(gradients)
        if self._greenlets[k].dead:
            turn.loss = answer
        else:
            self._waiting[k] = answer
