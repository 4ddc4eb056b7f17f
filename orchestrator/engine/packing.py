"""Packed passes: the trials of a pack share one pass through the frozen layers, whatever their methods.

All trials of a lane call the same frozen layers in the same order. Each trial's forward runs in a greenlet. At a frozen
layer it hands its input to the hub and waits. When every trial waits or has finished, the hub takes the earliest layer
at which a trial waits and computes it once for all trials that wait there. Inputs are stacked by rows of
``batch x tokens``, so batches of different shapes need no padding. In training, the trials' losses are summed, so that
one backward pass shares the layers in the same way; no hub is needed there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from greenlet import getcurrent, greenlet
from torch import Tensor

from orchestrator.backbone.frozen import SharedLayer, override_matmul
from orchestrator.engine.matmul import shared_matmul
from orchestrator.engine.out_of_memory import drop_frames
from orchestrator.engine.random_stream import CPU
from orchestrator.engine.thread_state import ThreadState, ThreadStateSwitch, switch_thread_states

ResultT = TypeVar("ResultT")


@dataclass
class PackedCall(Generic[ResultT]):
    """One trial's call in a packed pass, with its result or its error."""

    call: Callable[[], ResultT]
    result: ResultT | None = None
    error: Exception | None = None


def in_lockstep(
    calls: Sequence[Callable[[], ResultT]], device: torch.device = CPU, draws: Sequence[bool] | None = None
) -> list[PackedCall[ResultT]]:
    """Run the calls in lockstep from frozen layer to frozen layer.

    Every call keeps its own random stream, gradient mode, inference mode and autocast across its waits. An error in one
    call ends that call alone.

    Args:
        calls: forward passes over views of one backbone; all in training mode, or all in evaluation mode.
        device: device of the backbone.
        draws: whether each call draws random numbers; by default all may. The generators are not saved and set again
            at the waits of those that do not, which on a GPU takes longer than many a layer.

    Raises:
        Exception: an error in a shared product; every call has then been unwound.
    """
    packed_calls = [PackedCall(call) for call in calls]
    with switch_thread_states(device) as states:
        hub = _Hub(packed_calls, states, device, draws or [True] * len(calls))
        with override_matmul(hub.matmul):
            hub.run()
    return packed_calls


class _Hub:
    def __init__(
        self, calls: Sequence[PackedCall[Any]], states: ThreadStateSwitch, device: torch.device, draws: Sequence[bool]
    ) -> None:
        self._calls, self._switch, self._device, self._draws = calls, states, device, draws
        self._greenlets = [greenlet(packed_call.call) for packed_call in calls]
        self._hub_state = ThreadState.capture(self._device, random=False)  # a frozen layer draws nothing
        self._states = [ThreadState.capture(self._device, random=random) for random in draws]
        self._waiting: dict[int, tuple[SharedLayer, Tensor, Tensor | None]] = {}
        self._main = getcurrent()

    def matmul(self, layer: SharedLayer, x: Tensor, bias: Tensor | None) -> Tensor:
        """Wait until the hub has computed the layer for all trials, and return this trial's output."""
        if getcurrent() is self._main:
            return layer.matmul(x, bias)
        if torch.is_grad_enabled():
            y: Tensor = self._main.switch(layer, x, bias)
            return y
        # The shared product may belong to the graph of a neighbour that trains; this trial's output must not.
        y = self._main.switch(layer, x.detach(), bias)
        return y.detach()

    def run(self) -> None:
        """Run all calls to their ends."""
        try:
            for k in range(len(self._calls)):
                self._resume(k)
            while self._waiting:
                self._compute_earliest_layer()
        finally:
            self._switch.restore(self._hub_state)
            for call_greenlet in self._greenlets:
                if call_greenlet:  # still alive: raise GreenletExit in it, so that its ``finally`` blocks run
                    call_greenlet.throw()

    def _compute_earliest_layer(self) -> None:
        """Compute the earliest layer at which a trial waits, once for all trials that wait there."""
        self._switch.restore(self._hub_state)
        layer = min((layer for layer, *_ in self._waiting.values()), key=lambda waiting: waiting.position)
        trials = [k for k, (other, *_) in self._waiting.items() if other.frozen is layer.frozen]
        inputs, biases = zip(*(self._waiting.pop(k)[1:] for k in trials), strict=True)
        outputs = shared_matmul(layer.frozen, layer.compute_dtype, inputs, biases)
        for k, output in zip(trials, outputs, strict=True):
            self._resume(k, output)

    def _resume(self, k: int, *value: Tensor) -> None:
        """Continue trial ``k`` until it waits at a layer, ends or raises."""
        packed_call = self._calls[k]
        self._switch.restore(self._states[k])
        try:
            result = self._greenlets[k].switch(*value)
        except Exception as error:  # the trial's own; its neighbours continue
            packed_call.error = drop_frames(error)  # now, so that its activations do not take its neighbours' memory
            return
        finally:
            self._states[k] = ThreadState.capture(self._device, random=self._draws[k])
        if self._greenlets[k].dead:
            packed_call.result = result
        else:
            self._waiting[k] = result
