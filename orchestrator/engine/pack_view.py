"""One view of the backbone for the rows of several trials: what no trial has changed runs once for all rows.

The trials' batches stand below one another in one batch. Where a module differs in any trial's view (a *site*), each
trial's own module gets that trial's rows. A site is the outermost module that a trial has changed; what is above and
beside the sites is the backbone's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.utils.generic import ModelOutput

from orchestrator.backbone.shared import SharedBackbone
from orchestrator.engine.frozen_depth import is_unchanged
from orchestrator.engine.pack_rows import PassRows, split_rows
from orchestrator.engine.pack_site import Site
from orchestrator.engine.packing import Fork
from orchestrator.engine.parameter_stack import ParameterStacks
from orchestrator.engine.stacked_layers import prepare_stacked_layers

PADDED = frozenset({"input_ids", "inputs_embeds", "attention_mask", "token_type_ids", "position_ids"})
"""Arguments of shape ``(rows, tokens, ...)``, which are padded to the longest batch."""

CONTAINERS = (nn.ModuleList, nn.ModuleDict)


def body_of(model: nn.Module) -> nn.Module | None:
    """Return the part of a model below its head; ``None`` if it is not a module of its own."""
    body = getattr(model, getattr(model, "base_model_prefix", "") or "\0", None)
    return body if isinstance(body, nn.Module) and body is not model else None


def has_same_containers(bare: nn.Module, body: nn.Module) -> bool:
    """Return whether the lists of a view's body have the bare one's keys, so that one pass can be both's."""
    own = dict(body.named_modules())
    lists = ((name, module) for name, module in bare.named_modules() if isinstance(module, CONTAINERS))
    return all(name not in own or own[name]._modules.keys() == module._modules.keys() for name, module in lists)


class PackView:
    """The bodies of several trials' views as one module.

    Args:
        backbone: backbone of the views.
        views: each trial's view.
        active: each trial's modules that are in training mode while it trains.
        padding_id: id of the padding token.
        pads_left: whether padding goes before the tokens.
    """

    def __init__(
        self,
        backbone: SharedBackbone,
        views: Sequence[nn.Module],
        active: Sequence[Sequence[nn.Module]],
        padding_id: int,
        pads_left: bool,
    ) -> None:
        self._rows, self._padding_id, self._pads_left = PassRows(), padding_id, pads_left
        bare, body = body_of(backbone.model), body_of(backbone.bare_view())
        bodies = [body_of(view) for view in views]
        assert bare is not None
        assert body is not None
        modules = [dict(each.named_modules()) for each in bodies if each is not None]
        changed = [changed_modules(bare, own, modes) for own, modes in zip(modules, active, strict=True)]
        names = _outermost(frozenset().union(*changed))
        own = [
            [each[name] if _contains(own_changes, name) else body.get_submodule(name) for name in names]
            for each, own_changes in zip(modules, changed, strict=True)
        ]
        # Alike trials stand beside one another, so that their rows need no copy to be taken together.
        self._order = sorted(range(len(views)), key=lambda k: [type(module).__name__ for module in own[k]])
        sites = []
        for number, name in enumerate(names):
            modules_at_site = [own[k][number] for k in self._order]
            sites.append(Site(body.get_submodule(name), modules_at_site, self._rows))
            body.set_submodule(name, sites[-1])
        self._stacked = [stacked for site in sites for stacked in site.stacked]
        self._stacks = ParameterStacks([stack for stacked in self._stacked for stack in stacked.stacks])
        self._body, self._bodies = body, bodies

    def run(self, trials: Sequence[int], arguments: Sequence[Mapping[str, Any]], fork: Fork) -> list[Any]:
        """Return the output of each trial's body for its arguments."""
        if any("inputs_embeds" in given for given in arguments):
            arguments = [_embedded(body, given) for body, given in zip(self._bodies, arguments, strict=True)]
        arguments = [arguments[k] for k in self._order]
        counts, widths = zip(*map(shape_of, arguments), strict=True)
        self._rows.begin(counts, [trials[k] for k in self._order], fork)
        self._stacks.read()
        prepare_stacked_layers(self._stacked)
        joint = {name: self._stack(name, [kwargs[name] for kwargs in arguments]) for name in arguments[0]}
        outputs = zip(split_rows(self._body(**joint), counts), widths, strict=True)
        by_trial = dict(zip(self._order, (self._cut(output, width) for output, width in outputs), strict=True))
        return [by_trial[k] for k in range(len(trials))]

    def write_gradients(self) -> None:
        """Add the gradients of stacked parameters to the trials' own; called after the backward pass."""
        self._stacks.write_gradients()

    def _stack(self, name: str, values: Sequence[Any]) -> Any:
        if not isinstance(values[0], Tensor):
            return values[0]
        width = max(value.shape[1] for value in values)
        fill = self._padding_id if name == "input_ids" else 0
        return torch.cat([self._padded(value, width, fill) for value in values])

    def _padded(self, value: Tensor, width: int, fill: int) -> Tensor:
        missing = width - value.shape[1]
        if not missing:
            return value
        padding = (missing, 0) if self._pads_left else (0, missing)
        return F.pad(value, (0, 0) * (value.dim() - 2) + padding, value=fill)

    def _cut(self, output: Any, width: int) -> Any:
        """Return a trial's output without the padding."""
        if isinstance(output, ModelOutput):
            return type(output)(**{name: self._cut(value, width) for name, value in output.items()})
        if isinstance(output, tuple):
            return tuple(self._cut(item, width) for item in output)
        if not isinstance(output, Tensor) or output.dim() < 3 or output.shape[1] == width:  # of a row as a whole
            return output
        return output[:, -width:] if self._pads_left else output[:, :width]


def shape_of(arguments: Mapping[str, Any]) -> tuple[int, int]:
    """Return the rows and tokens of the arguments of a body."""
    inputs = arguments.get("input_ids", arguments.get("inputs_embeds"))
    rows, tokens = inputs.shape[:2]
    return rows, tokens


def _embedded(body: Any, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """Replace token ids by their embeddings."""
    if "inputs_embeds" in arguments:
        return arguments
    rest = {name: value for name, value in arguments.items() if name != "input_ids"}
    return {"inputs_embeds": body.get_input_embeddings()(arguments["input_ids"]), **rest}


def changed_modules(bare: nn.Module, modules: Mapping[str, nn.Module], active: Sequence[nn.Module]) -> frozenset[str]:
    """Return the names of the modules of a view that compute something else than the bare model's, or may do so.

    Args:
        bare: body of the model without any method.
        modules: modules of the body of a view with a method attached, by name.
        active: modules that are in training mode while the method trains.
    """
    active_ids = {id(module) for module in active}
    changed = set()
    for name, module in bare.named_modules():
        other = modules.get(name)
        if other is None or not name or isinstance(other, CONTAINERS):
            continue  # inside a module that was replaced, the body itself, or nothing that is called
        hooks = len(other._forward_hooks) != len(module._forward_hooks)
        if hooks or id(other) in active_ids or not is_unchanged(module, other):
            changed.add(name)
    return frozenset(changed)


def _outermost(names: frozenset[str]) -> list[str]:
    """Return the names that are inside no other."""
    chosen: list[str] = []
    for name in sorted(names):
        if not any(name.startswith(f"{other}.") for other in chosen):
            chosen.append(name)
    return chosen


def _contains(names: frozenset[str], site: str) -> bool:
    """Return whether a trial has changed a module or anything inside it."""
    return any(f"{name}.".startswith(f"{site}.") for name in names)
