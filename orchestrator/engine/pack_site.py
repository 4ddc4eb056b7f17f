"""A place in a joint pass where the modules of some trials differ from the backbone's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor, nn
from transformers.utils.generic import ModelOutput

from methods.base.stackable import Stackable
from orchestrator.backbone.frozen import FrozenLinear
from orchestrator.engine.packing import Fork, KnownProduct, TrialCall
from orchestrator.engine.parameter_stack import ParameterStack
from orchestrator.engine.row_parts import join_tensors, split_tensor


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

    def __call__(self, x: Tensor) -> Any:
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
        self._bare, self._modules_of_trials, self._rows = bare, tuple(modules), rows
        self._groups = _groups(bare, modules)
        self._adds_bias = any(_adds_bias(bare, module) for module in modules)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("_bare"), name)

    @property
    def stacks(self) -> list[ParameterStack]:
        """All stacks of the site."""
        return [stack for _, stacked in self._groups if isinstance(stacked, _Stacked) for stack in stacked.stacks]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the outputs of all trials, one below the other."""
        groups = self._present_groups()
        arguments = _Arguments(args, kwargs, self._rows.counts)
        if len(groups) == 1:
            places, taker = groups[0]
            call = TrialCall(partial(taker, *args, **kwargs), self._trial(places, taker))
            return taker(*args, **kwargs) if call.trial is None else self._rows.fork([call])[0]
        outputs, unbiased = self._frozen_outputs(args, kwargs)
        calls, members = [], []
        for places, taker in groups:
            own_args, own_kwargs = arguments.of(places)
            if outputs and taker is self._bare:
                continue
            known = None
            if outputs and isinstance(self._bare, FrozenLinear):
                without_bias = _rows(unbiased, places) if unbiased else None
                known = KnownProduct(self._bare, own_args[0], _rows(outputs, places), without_bias)
            calls.append(TrialCall(partial(taker, *own_args, **own_kwargs), self._trial(places, taker), known))
            members.append(places)
        results = _by_place(self._rows.fork(calls), members, self._rows.counts)
        return _join(
            [results.get(place, outputs[place] if outputs else None) for place in range(len(arguments.counts))],
            arguments.counts,
        )

    def _present_groups(self) -> list[tuple[Sequence[int], Callable[..., Any]]]:
        """Return who takes which trials' rows; stacked layers go apart where their trials have different counts."""
        counts = self._rows.counts
        groups: list[tuple[Sequence[int], Callable[..., Any]]] = []
        for places, taker in self._groups:
            if isinstance(taker, _Stacked) and len({counts[place] for place in places}) > 1:
                groups += [((place,), self._modules_of_trials[place]) for place in places]
            else:
                groups.append((places, taker))
        return groups

    def _trial(self, places: Sequence[int], taker: Callable[..., Any]) -> int | None:
        is_own = taker is not self._bare and not isinstance(taker, _Stacked)
        return self._rows.trials[places[0]] if is_own else None

    def _frozen_outputs(
        self, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Return the frozen layer's outputs with and without its bias, by trial; empty if it is no frozen layer.

        Most methods add to this output or scale it. One product for all rows then needs no waiting. Each trial's rows
        may be changed in place, since nothing else reads them. The second is empty too if no trial's module adds the
        bias itself.
        """
        if not isinstance(self._bare, FrozenLinear) or len(args) != 1 or kwargs:
            return (), ()
        counts, bias = list(self._rows.counts), self._bare.bias
        if bias is None or not self._adds_bias:
            return split_tensor(self._bare(args[0]), counts), ()
        output = self._bare.product(args[0])
        return split_tensor(output + bias.to(output.dtype), counts), split_tensor(output, counts)


def _adds_bias(bare: nn.Module, module: nn.Module) -> bool:
    """Return whether a module takes the frozen product without the bias: because it trains it, or says so."""
    return (type(module) is FrozenLinear and module is not bare) or getattr(module, "adds_bias", False)


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


class _Arguments:
    """The arguments of a call, by trial."""

    def __init__(self, args: Sequence[Any], kwargs: Mapping[str, Any], counts: Sequence[int]) -> None:
        self._args, self._kwargs, self.counts, self._total = args, kwargs, list(counts), sum(counts)
        self._split: dict[int, Sequence[Tensor]] = {}

    def of(self, places: Sequence[int]) -> tuple[list[Any], dict[str, Any]]:
        """Return the arguments with the rows of the trials at some places."""
        return [self._part(value, places) for value in self._args], {
            name: self._part(value, places) for name, value in self._kwargs.items()
        }

    def _part(self, value: Any, places: Sequence[int]) -> Any:
        if isinstance(value, tuple):
            return tuple(self._part(item, places) for item in value)
        # Tensors of one dimension are positions; one row is meant for all.
        if not isinstance(value, Tensor) or value.dim() < 2 or value.shape[0] == 1:
            return value
        if id(value) not in self._split:
            self._split[id(value)] = split_tensor(value, _lengths(value, self.counts))
        return _rows(self._split[id(value)], places)


def _lengths(value: Tensor, counts: Sequence[int]) -> list[int]:
    """Return how much of the first dimension belongs to each trial: its rows, or all tokens or heads of its rows.

    Raises:
        ValueError: if that cannot be told.
    """
    each, rest = divmod(value.shape[0], sum(counts))
    if rest or not each:
        raise ValueError(f"a tensor of shape {tuple(value.shape)} has no rows of a batch of {sum(counts)}")
    return [each * count for count in counts]


def _rows(parts: Sequence[Tensor], places: Sequence[int]) -> Tensor:
    """Return the rows of the trials at some places, one below the other."""
    return parts[places[0]] if len(places) == 1 else join_tensors([parts[place] for place in places])


def _by_place(outputs: Sequence[Any], members: Sequence[Sequence[int]], counts: Sequence[int]) -> dict[int, Any]:
    """Return each trial's part of the outputs of all calls."""
    parts: dict[int, Any] = {}
    for output, places in zip(outputs, members, strict=True):
        parts.update(zip(places, split_rows(output, [counts[place] for place in places]), strict=True))
    return parts


def split_rows(output: Any, counts: Sequence[int]) -> Sequence[Any]:
    """Return each trial's rows of an output, a tensor or whatever holds tensors; one row is meant for all.

    Args:
        output: output of a module.
        counts: rows of each trial.
    """
    if len(counts) == 1:
        return [output]
    if isinstance(output, ModelOutput):
        parts = {name: split_rows(value, counts) for name, value in output.items()}
        return [type(output)(**{name: values[k] for name, values in parts.items()}) for k in range(len(counts))]
    if isinstance(output, tuple):
        return list(zip(*(split_rows(item, counts) for item in output), strict=True))
    if not isinstance(output, Tensor) or output.shape[0] == 1 < sum(counts):
        return [output] * len(counts)
    return split_tensor(output, _lengths(output, counts))


def _join(outputs: Sequence[Any], counts: Sequence[int]) -> Any:
    """Put the outputs of all trials below one another; one row that is meant for all of a trial is repeated.

    Raises:
        ValueError: if an output has none.
    """
    first = outputs[0]
    if isinstance(first, ModelOutput):
        return type(first)(**{name: _join([output[name] for output in outputs], counts) for name in first})
    if isinstance(first, tuple):
        return tuple(_join(items, counts) for items in zip(*outputs, strict=True))
    if not isinstance(first, Tensor):
        if any(output is not first for output in outputs):
            raise ValueError(f"a {type(first).__name__} has no rows")
        return first
    if all(output.shape[0] == 1 for output in outputs):
        outputs = [output.expand(count, *output.shape[1:]) for output, count in zip(outputs, counts, strict=True)]
    return join_tensors(outputs)
