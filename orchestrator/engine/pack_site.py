"""A place in a joint pass where the modules of some trials differ from the backbone's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from methods.base.stackable import Stackable
from orchestrator.engine.packing import Fork, TrialCall
from orchestrator.engine.parameter_stack import ParameterStack


@dataclass
class PassRows:
    """How the rows of the present joint pass belong to its trials; shared by all sites.

    Args:
        counts: rows of each trial, one below the other.
        trials: number of each trial.
        fork: runs calls in lockstep.
    """

    counts: Sequence[int] = ()
    trials: Sequence[int] = ()
    fork: Fork = field(default=lambda calls: [call.call() for call in calls])


@dataclass(frozen=True)
class _Stacked:
    """Layers that are stacked."""

    layers: Sequence[Stackable]
    stacks: Sequence[ParameterStack]
    constants: Tensor

    def forward(self, x: Tensor) -> Any:
        tensors = [stack.tensor for stack in self.stacks]
        return type(self.layers[0]).stacked_forward(self.layers, x, tensors, self.constants)


class Site(nn.Module):
    """Gives each trial's rows to its own module; like modules take theirs together.

    Rows of all trials that have left the module as it is go through the backbone's. Stackable layers of one key are
    stacked if their trials have equally many rows. Each other module takes its trial's rows alone.

    Args:
        bare: the backbone's module.
        modules: each trial's module; the backbone's where the trial has left it as it is.
        rows: rows of the present pass.
    """

    def __init__(self, bare: nn.Module, modules: Sequence[nn.Module], rows: PassRows) -> None:
        super().__init__()
        # Not registered: they belong to the trials' views.
        self.__dict__.update(_bare=bare, _modules_of_trials=tuple(modules), _rows=rows)
        self.__dict__["_groups"] = _groups(bare, modules)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_bare"], name)

    @property
    def stacks(self) -> list[ParameterStack]:
        """All stacks of the site."""
        return [stack for _, stacked in self._groups if isinstance(stacked, _Stacked) for stack in stacked.stacks]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the outputs of all trials, one below the other."""
        counts, calls = self._rows.counts, []
        parts = _Parts(args, kwargs, counts)
        members: list[Sequence[int]] = []
        for places, group in self._groups:
            if isinstance(group, _Stacked) and len({counts[place] for place in places}) > 1:
                for place in places:
                    calls.append(parts.call(self._modules_of_trials[place], [place], self._rows.trials[place]))
                    members.append([place])
                continue
            trial = self._rows.trials[places[0]] if group is not self._bare and isinstance(group, nn.Module) else None
            function = group.forward if isinstance(group, _Stacked) else group
            calls.append(parts.call(function, places, trial))
            members.append(places)
        if len(calls) == 1:
            return calls[0].call() if calls[0].trial is None else self._rows.fork(calls)[0]
        return _join(self._rows.fork(calls), members, counts)


def _groups(bare: nn.Module, modules: Sequence[nn.Module]) -> list[tuple[tuple[int, ...], Any]]:
    """Return the places of the trials whose rows go through one call, and what takes them."""
    by_key: dict[Hashable, list[int]] = defaultdict(list)
    for place, module in enumerate(modules):
        key: Hashable = place
        if module is bare:
            key = "bare"
        elif isinstance(module, Stackable) and (stack_key := module.stack_key()) is not None:
            key = (type(module), stack_key)
        by_key[key].append(place)
    return [(tuple(places), _taker(bare, [modules[place] for place in places])) for places in by_key.values()]


def _taker(bare: nn.Module, modules: Sequence[nn.Module]) -> Any:
    first = modules[0]
    if first is bare or len(modules) == 1:
        return first
    layers = [module for module in modules if isinstance(module, Stackable)]
    stacks = [ParameterStack(alike) for alike in zip(*(layer.stack_parameters() for layer in layers), strict=True)]
    constants = stacks[0].tensor.new_tensor([layer.stack_constant() for layer in layers])
    return _Stacked(layers, stacks, constants)


class _Parts:
    """The arguments of a call, by trial."""

    def __init__(self, args: Sequence[Any], kwargs: dict[str, Any], counts: Sequence[int]) -> None:
        self._args, self._kwargs, self._counts, self._total = args, kwargs, list(counts), sum(counts)
        self._split: dict[int, Sequence[Tensor]] = {}

    def call(self, function: Callable[..., Any], places: Sequence[int], trial: int | None) -> TrialCall:
        """Return the call of a function with the rows of the trials at some places."""
        args = [self._of(value, places) for value in self._args]
        kwargs = {name: self._of(value, places) for name, value in self._kwargs.items()}
        return TrialCall(partial(function, *args, **kwargs), trial)

    def _of(self, value: Any, places: Sequence[int]) -> Any:
        if isinstance(value, tuple):
            return tuple(self._of(item, places) for item in value)
        if not isinstance(value, Tensor) or not value.dim() or value.shape[0] != self._total:
            return value
        if len(places) == len(self._counts):
            return value
        if id(value) not in self._split:
            self._split[id(value)] = value.split(self._counts)
        parts = [self._split[id(value)][place] for place in places]
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def _join(outputs: Sequence[Any], members: Sequence[Sequence[int]], counts: Sequence[int]) -> Any:
    """Put the outputs of all calls below one another, in the order of the trials."""
    if isinstance(outputs[0], tuple):
        return tuple(_join(items, members, counts) for items in zip(*outputs, strict=True))
    if not isinstance(outputs[0], Tensor):
        return outputs[0]
    parts: dict[int, Tensor] = {}
    for output, places in zip(outputs, members, strict=True):
        pieces = [output] if len(places) == 1 else output.split([counts[place] for place in places])
        parts.update(zip(places, pieces, strict=True))
    return torch.cat([parts[place] for place in range(len(counts))])
