"""Packed passes: the trials of a pack share one pass through the frozen layers, whatever their methods.

All trials of a lane call the same frozen layers in the same order. Each trial's forward runs in a greenlet. At a frozen
layer it hands its input to the hub and waits. When every trial waits or has finished, the hub takes the earliest layer
at which a trial waits and computes it once for all trials that wait there. Inputs are stacked by rows of
``batch x tokens``, so batches of different shapes need no padding. In training, the trials' losses are summed, so that
one backward pass shares the layers in the same way; no hub is needed there.

Where a joint pass is given, trials wait for one another at the body of their model as well, and those with like
arguments run it together. In the joint pass, each call for some of the rows has a greenlet of its own, so that frozen
layers wait for one another there too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import torch
from greenlet import getcurrent, greenlet
from torch import Tensor

from orchestrator.backbone.frozen import FrozenLinear, SharedLayer, override_matmul
from orchestrator.engine.matmul import shared_matmul
from orchestrator.engine.out_of_memory import drop_frames
from orchestrator.engine.random_stream import CPU
from orchestrator.engine.thread_state import ThreadState, ThreadStateSwitch, switch_thread_states

ResultT = TypeVar("ResultT")


class Fork(Protocol):
    """Runs the calls of a joint pass in lockstep."""

    def __call__(self, calls: Sequence[TrialCall]) -> list[Any]:
        """Return the results of the calls, in order."""
        ...


class JointPass(Protocol):
    """Runs the bodies of several trials as one."""

    def groups(self, trials: Sequence[int], arguments: Sequence[Mapping[str, Any]]) -> Sequence[Sequence[int]]:
        """Return which of the waiting trials run together; those that are in no group run alone.

        Args:
            trials: numbers of the waiting trials.
            arguments: arguments that each calls its body with.
        """
        ...

    def run(self, trials: Sequence[int], arguments: Sequence[Mapping[str, Any]], fork: Fork) -> Sequence[Any]:
        """Return the output of each trial's body."""
        ...


@dataclass(frozen=True)
class TrialCall:
    """A call within a joint pass.

    Args:
        call: function to call.
        trial: number of the trial that it belongs to, whose random stream it continues; ``None`` if it draws nothing.
        known: product that the call need not wait for.
    """

    call: Callable[[], Any]
    trial: int | None = None
    known: KnownProduct | None = None


@dataclass(frozen=True)
class KnownProduct:
    """A product that has been computed for some rows before the layer is called with them.

    Args:
        layer: the layer.
        x: its input; the layer is known to be called with it if it is called with this very tensor.
        bias: the bias that its output has, the layer's own or none.
        output: its output.
    """

    layer: FrozenLinear
    x: Tensor
    bias: Tensor | None
    output: Tensor

    def of(self, layer: SharedLayer, x: Tensor, bias: Tensor | None) -> Tensor | None:
        """Return the output that a layer is called for; ``None`` if it is another product."""
        is_known = x is self.x and layer.frozen is self.layer.frozen and bias is self.bias
        return self.output if is_known else None


@dataclass
class PackedCall(Generic[ResultT]):
    """One trial's call in a packed pass, with its result or its error."""

    call: Callable[[], ResultT]
    result: ResultT | None = None
    error: Exception | None = None


def in_lockstep(
    calls: Sequence[Callable[[], ResultT]],
    device: torch.device = CPU,
    draws: Sequence[bool] | None = None,
    joint: JointPass | None = None,
) -> list[PackedCall[ResultT]]:
    """Run the calls in lockstep from frozen layer to frozen layer.

    Every call keeps its own random stream, gradient mode, inference mode and autocast across its waits. An error in one
    call ends that call alone.

    Args:
        calls: forward passes over views of one backbone; all in training mode, or all in evaluation mode.
        device: device of the backbone.
        draws: whether each call draws random numbers; by default all may. The generators are not saved and set again
            at the waits of those that do not, which on a GPU takes longer than many a layer.
        joint: runs the bodies of several calls as one; each runs its own if left out.

    Raises:
        Exception: an error in a shared product or in a joint pass; every call has then been unwound.
    """
    global _hub
    packed_calls = [PackedCall(call) for call in calls]
    with switch_thread_states(device) as states:
        hub = _Hub(packed_calls, states, device, draws or [True] * len(calls), joint)
        before, _hub = _hub, hub
        try:
            with override_matmul(hub.matmul):
                hub.run()
        finally:
            _hub = before
    return packed_calls


def bodies_join() -> bool:
    """Return whether this is a trial's part of a packed pass in which bodies run together."""
    return _hub is not None and _hub.joint is not None and getcurrent() is not _hub.main


def run_body(forward: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """Run the body of the present trial's model, together with others' that wait; only where :func:`bodies_join`.

    Args:
        forward: the body's own pass.
        arguments: its arguments by name.
    """
    assert _hub is not None
    joined = _hub.main.switch(_Body(arguments))
    return forward(**arguments) if joined is None else joined


@dataclass(frozen=True)
class _Product:
    """A strand waits for a product."""

    layer: SharedLayer
    x: Tensor
    bias: Tensor | None


@dataclass(frozen=True)
class _Body:
    """A trial waits at its body."""

    arguments: Mapping[str, Any]


@dataclass(eq=False)
class _Strand:
    """A greenlet of the hub.

    Args:
        greenlet: what runs.
        state: state of the thread while it runs; a strand of a trial has the trial's.
        trial: number of the trial whose random stream it continues.
        end: function that takes its result.
        own: whether an error ends the trial alone, and not the whole pass.
        known: product that it need not wait for.
    """

    greenlet: Any
    state: ThreadState
    trial: int | None
    end: Callable[[Any], None]
    own: bool = False
    known: KnownProduct | None = None


class _Hub:
    def __init__(
        self,
        calls: Sequence[PackedCall[Any]],
        states: ThreadStateSwitch,
        device: torch.device,
        draws: Sequence[bool],
        joint: JointPass | None,
    ) -> None:
        self._calls, self._switch, self._device, self._draws, self.joint = calls, states, device, draws, joint
        self._hub_state = ThreadState.capture(self._device, random=False)  # a frozen layer draws nothing
        self._trials = [
            _Strand(
                greenlet(packed_call.call),
                ThreadState.capture(self._device, random=random),
                number,
                partial(setattr, packed_call, "result"),
                own=True,
            )
            for number, (packed_call, random) in enumerate(zip(calls, draws, strict=True))
        ]
        self._strands: dict[_Strand, None] = dict.fromkeys(self._trials)
        self._waiting: dict[_Strand, _Product] = {}
        self._bodies: dict[_Strand, _Body] = {}
        self._known: KnownProduct | None = None  # of the strand that runs
        self.main = getcurrent()

    def matmul(self, layer: SharedLayer, x: Tensor, bias: Tensor | None) -> Tensor:
        """Wait until the hub has computed the layer for all trials, and return this trial's output."""
        if getcurrent() is self.main:
            return layer.matmul(x, bias)
        if self._known and (output := self._known.of(layer, x, bias)) is not None:
            return output
        if torch.is_grad_enabled():
            y: Tensor = self.main.switch(_Product(layer, x, bias))
            return y
        # The shared product may belong to the graph of a neighbour that trains; this trial's output must not.
        y = self.main.switch(_Product(layer, x.detach(), bias))
        return y.detach()

    def run(self) -> None:
        """Run all calls to their ends."""
        try:
            for strand in self._trials:
                self._resume(strand)
            while self._waiting or self._bodies:
                if self._bodies:
                    self._run_bodies()
                else:
                    self._compute_earliest_layer()
        finally:
            self._switch.restore(self._hub_state)
            for strand in list(self._strands):
                if strand.greenlet:  # still alive: raise GreenletExit in it, so that its ``finally`` blocks run
                    strand.greenlet.throw()

    def _compute_earliest_layer(self) -> None:
        """Compute the earliest layer at which a strand waits, once for all strands that wait there."""
        self._switch.restore(self._hub_state)
        layer = min((product.layer for product in self._waiting.values()), key=lambda waiting: waiting.position)
        strands = [strand for strand, product in self._waiting.items() if product.layer.frozen is layer.frozen]
        products = [self._waiting.pop(strand) for strand in strands]
        inputs, biases = [product.x for product in products], [product.bias for product in products]
        outputs = shared_matmul(layer.frozen, layer.compute_dtype, inputs, biases)
        for strand, output in zip(strands, outputs, strict=True):
            self._resume(strand, output)

    def _run_bodies(self) -> None:
        """Start the bodies at which trials wait: those of a group in one joint pass, the others each on its own."""
        assert self.joint is not None
        bodies, self._bodies = self._bodies, {}
        by_modes = defaultdict(list)
        for strand in bodies:
            by_modes[strand.state.modes].append(strand)
        for strands in by_modes.values():
            by_trial = {strand.trial: strand for strand in strands if strand.trial is not None}
            arguments = {trial: bodies[strand].arguments for trial, strand in by_trial.items()}
            for trials in self.joint.groups(list(by_trial), list(arguments.values())):
                members = [by_trial.pop(trial) for trial in trials]
                call = partial(self.joint.run, trials, [arguments[trial] for trial in trials], self._fork)
                self._start(call, members[0].state.without_random(), partial(self._resume_all, members))
            for strand in by_trial.values():
                self._resume(strand, None)  # it runs its body itself

    def _start(
        self,
        call: Callable[[], Any],
        state: ThreadState,
        end: Callable[[Any], None],
        trial: int | None = None,
        known: KnownProduct | None = None,
    ) -> None:
        strand = _Strand(greenlet(call), state, trial, end, known=known)
        self._strands[strand] = None
        self._resume(strand)

    def _resume_all(self, strands: Sequence[_Strand], outputs: Sequence[Any]) -> None:
        for strand, output in zip(strands, outputs, strict=True):
            self._resume(strand, output)

    def _fork(self, calls: Sequence[TrialCall]) -> list[Any]:
        results: list[Any] = self.main.switch(calls)
        return results

    def _start_fork(self, parent: _Strand, calls: Sequence[TrialCall]) -> None:
        """Start the calls of a joint pass, which goes on with their results when the last has ended."""
        results: dict[int, Any] = {}

        def end(number: int, result: Any) -> None:
            results[number] = result
            if len(results) == len(calls):
                self._resume(parent, [results[k] for k in range(len(calls))])

        for number, call in enumerate(calls):
            state = parent.state if call.trial is None else self._trials[call.trial].state
            self._start(call.call, state, partial(end, number), call.trial, call.known)

    def _resume(self, strand: _Strand, *value: Any) -> None:
        """Continue a strand until it waits, ends or raises."""
        owner = strand if strand.trial is None else self._trials[strand.trial]
        self._switch.restore(owner.state)
        self._known = strand.known
        try:
            result = strand.greenlet.switch(*value)
        except Exception as error:
            if not strand.own:
                raise
            # The trial's own; its neighbours continue. Its frames go now, so that its activations do not take their
            # memory.
            self._calls[strand.trial].error = drop_frames(error)  # type: ignore[index]
            del self._strands[strand]
            return
        finally:
            random = strand.trial is not None and self._draws[strand.trial]
            owner.state = ThreadState.capture(self._device, random=random)
        if strand.greenlet.dead:
            del self._strands[strand]
            strand.end(result)
        elif isinstance(result, _Product):
            self._waiting[strand] = result
        elif isinstance(result, _Body):
            self._bodies[strand] = result
        else:
            self._start_fork(strand, result)


_hub: _Hub | None = None
