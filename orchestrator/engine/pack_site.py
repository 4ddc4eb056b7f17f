"""A place in a joint pass where the modules of some trials differ from the backbone's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from methods.base.stackable import Stackable
from orchestrator.backbone.frozen import FrozenLinear
from orchestrator.engine.pack_rows import PassRows, Segments, join_rows, lengths
from orchestrator.engine.packing import KnownProduct, TrialCall
from orchestrator.engine.row_parts import split_tensor
from orchestrator.engine.stacked_layers import StackedLayers, stack_layers


@dataclass(frozen=True)
class _Group:
    """Trials whose rows go through one call.

    Args:
        places: places of the trials.
        taker: what takes the rows.
        adds_bias: whether it takes a frozen product without the bias, because it trains it, or adds it itself.
    """

    places: Sequence[int]
    taker: Any
    adds_bias: bool


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

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("_bare"), name)

    @property
    def stacked(self) -> list[StackedLayers]:
        """All stacked layers of the site."""
        return [group.taker for group in self._groups if isinstance(group.taker, StackedLayers)]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the outputs of all trials, one below the other."""
        groups = self._present_groups()
        if len(groups) == 1:
            call = TrialCall(partial(groups[0].taker, *args, **kwargs), self._trial(groups[0]))
            return call.call() if call.trial is None else self._rows.fork([call])[0]
        owners = {place: group for group in groups for place in group.places}
        segments = Segments([owners[place] for place in range(len(owners))], self._rows.counts)
        outputs = self._frozen_outputs(args, kwargs, segments)
        calls, takers = [], []
        for group in groups:
            if outputs and group.taker is self._bare:
                continue
            own_args, own_kwargs = segments.arguments(group, args, kwargs)
            known = None
            if outputs:
                bias = None if group.adds_bias else self._bare.bias
                known = KnownProduct(self._bare, own_args[0], bias, segments.join(outputs, group))  # type: ignore[arg-type]
            calls.append(TrialCall(partial(group.taker, *own_args, **own_kwargs), self._trial(group), known))
            takers.append(group)
        parts: list[Any] = list(outputs) or [None] * len(segments.counts)
        for group, result in zip(takers, self._rows.fork(calls), strict=True):
            segments.put(parts, group, result)
        return join_rows(parts, segments.counts)

    def _present_groups(self) -> list[_Group]:
        """Return who takes which trials' rows; stacked layers go apart where their trials have different counts."""
        counts = self._rows.counts
        groups: list[_Group] = []
        for group in self._groups:
            if isinstance(group.taker, StackedLayers) and len({counts[place] for place in group.places}) > 1:
                modules = ((place, self._modules_of_trials[place]) for place in group.places)
                groups += [_Group((place,), module, _adds_bias(self._bare, module)) for place, module in modules]
            else:
                groups.append(group)
        return groups

    def _trial(self, group: _Group) -> int | None:
        is_own = group.taker is not self._bare and not isinstance(group.taker, StackedLayers)
        return self._rows.trials[group.places[0]] if is_own else None

    def _frozen_outputs(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], segments: Segments[_Group]
    ) -> Sequence[Tensor]:
        """Return the frozen layer's output for each segment; nothing if it is no frozen layer.

        Most methods add to this output or scale it. One product for all rows then needs no waiting. Each segment's rows
        may be changed in place, since nothing else reads them. Those of trials that add the bias are without it.
        """
        bare = self._bare
        if not isinstance(bare, FrozenLinear) or len(args) != 1 or kwargs:
            return ()
        has_bias = [not group.adds_bias for group in segments.owners]
        if bare.bias is None or all(has_bias):
            output = bare(args[0])
        else:
            output = bare.product(args[0])
            if any(has_bias):
                mask = self._rows.mask(has_bias, lengths(output, segments.counts), output)
                output = torch.addcmul(output, mask, bare.bias.to(output.dtype))
        return split_tensor(output, lengths(output, segments.counts))


def _adds_bias(bare: nn.Module, module: nn.Module) -> bool:
    """Return whether a module takes the frozen product without the bias: because it trains it, or says so."""
    return (type(module) is FrozenLinear and module is not bare) or getattr(module, "adds_bias", False)


def _groups(bare: nn.Module, modules: Sequence[nn.Module]) -> list[_Group]:
    """Return who takes which trials' rows."""
    by_key: dict[Hashable, list[int]] = defaultdict(list)
    for place, module in enumerate(modules):
        key: Hashable = place
        if module is bare:
            key = "bare"
        elif isinstance(module, Stackable) and (stack_key := module.stack_key()) is not None:
            key = (type(module), stack_key)
        by_key[key].append(place)
    groups = []
    for places in by_key.values():
        own = [modules[place] for place in places]
        groups.append(_Group(tuple(places), _taker(bare, own), any(_adds_bias(bare, module) for module in own)))
    return groups


def _taker(bare: nn.Module, modules: Sequence[nn.Module]) -> Any:
    first = modules[0]
    if first is bare or len(modules) == 1:
        return first
    return stack_layers([module for module in modules if isinstance(module, Stackable)])
