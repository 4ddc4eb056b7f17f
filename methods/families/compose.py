"""Several methods on one view: MAM (He et al., arXiv:2110.04366), UniPELT (arXiv:2110.07577), AutoPEFT (2301.12132).

Parts are attached in this order, and within it as they are named: what trains the backbone's own parameters; what
`peft` puts into linear layers, first what computes with the layer's weight and then what works on its result; what
wraps layers itself; and soft prompts at last. What comes later wraps what came before. The head trains with the
composition, at ``learning_rate``; a part trains at its own.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import partial
from typing import Any

from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from torch import nn

from methods import get
from methods.base.architecture import blocks
from methods.base.spec import Attached, Category, Context, Hyperparameters, MethodError, MethodSpec
from methods.families.compose_params import CompositionParams, params_type
from methods.families.compose_names import parse
from methods.families.compose_combine import Piece, together

Specs = dict[str, MethodSpec[Any]]
# of the methods that peft puts into linear layers, those that take what the layer gives, whatever is in it
ON_RESULTS = frozenset({"lora", "qlora", "adalora", "ia3"})


def spec(member: str) -> MethodSpec[CompositionParams]:
    """The method of a composition.

    Args:
        member: its parts, ``prefix+adapter`` or ``serial=adapter+parallel=adapter``.

    Raises:
        KeyError: if a part's method is not known.
        MethodError: if the parts cannot go together.
    """
    try:
        parts = parse(member)
    except ValueError as error:
        raise MethodError(f"compose:{member}: {error}") from error
    specs: Specs = {part.name: get(part.method) for part in parts}
    if outer := [name for name, own in specs.items() if not own.trains]:
        raise MethodError(f"compose:{member}: {outer[0]} cannot be part of a composition: it trains nothing")
    return MethodSpec(
        name=f"compose:{member}",
        category=Category.COMPOSITION,
        reference="He et al. (2022), arXiv:2110.04366; Mao et al. (2022), arXiv:2110.07577",
        params_type=params_type(member, {name: own.params_type for name, own in specs.items()}),
        attach=partial(_attach, f"compose:{member}", specs),
        tasks=frozenset.intersection(*(own.tasks for own in specs.values())),
        starts_as_identity=all(own.starts_as_identity for own in specs.values()),
        supports_merge=all(own.supports_merge for own in specs.values()),
        needs_original=any(own.needs_original for own in specs.values()),
        original_for={
            f"{name}.{key}": values for name, own in specs.items() for key, values in own.original_for.items()
        },
    )


def _attach(method: str, specs: Specs, view: nn.Module, params: CompositionParams, context: Context) -> Attached:
    """Put every part that is on onto the view, one after the other, and let the head train.

    Raises:
        MethodError: if a part cannot be attached, is in the way of another, or none is on.
    """
    found = blocks(view)
    layers = {name: params.layers(name, len(found)) for name in specs}
    on = [name for name in sorted(specs, key=lambda name: _stage(specs[name])) if layers[name] != frozenset()]
    if not on:
        raise MethodError(f"every part of {method} is switched off")
    bridge = []
    for name in on:
        here = replace(context, head=(), layers=layers[name])
        attached = _attach_part(view, name, specs[name], params.parts[name], here)
        bridge.append(Piece(name, attached, params.parts[name].learning_rate / params.learning_rate))
        kept = layers[name]
        if kept is not None and _elsewhere(bridge[-1], [b.module for i, b in enumerate(found) if i not in kept]):
            raise MethodError(f"{name} sits in every layer and cannot keep to some; switch no layer off for it")
    return together(method, view, bridge, params, context)


def _stage(own: MethodSpec[Any]) -> tuple[int, bool]:
    if own.category is Category.SOFT_PROMPT:
        return 3, own.peft
    if own.category is Category.SELECTIVE:
        return 0, not own.needs_original
    return (1 if own.peft else 2), own.name in ON_RESULTS


def _attach_part(
    view: nn.Module, name: str, own: MethodSpec[Any], params: Hyperparameters, context: Context
) -> Attached:
    before = set(view.modules())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "You are trying to modify a model with PEFT for a second time")
        try:
            attached = own.attach(view, params, context)
        except MethodError as error:
            raise MethodError(f"{name}: {error}") from error
    if attached.source_steps(1000):
        raise MethodError(f"{name} cannot be part of a composition: it learns from other tasks before its own")
    if own.name not in ON_RESULTS and (hidden := _hidden(view, before)):
        raise MethodError(f"{name} computes with the weight of {hidden}, which another part changes; take one of them")
    _forget(view, attached.module)
    return attached


def _hidden(view: nn.Module, before: set[nn.Module]) -> str:
    """A layer that a new layer of `peft` was put around, and that is one of `peft` itself."""
    around = [(name, m) for name, m in view.named_modules() if isinstance(m, BaseTunerLayer) and m not in before]
    return next((name for name, m in around if isinstance(m._modules.get("base_layer"), BaseTunerLayer)), "")


def _forget(view: nn.Module, model: nn.Module) -> None:
    """Undo what `peft` leaves at the view, which it takes for its own: its configuration, and copies of the head."""
    view.__dict__.pop("peft_config", None)  # the next tuner would write its configuration over this one's
    for name, module in list(view.named_modules()):
        if isinstance(module, ModulesToSaveWrapper):
            view.set_submodule(name, module.original_module)
    if isinstance(model, PeftModel):
        model.active_peft_config.modules_to_save = None


def _elsewhere(piece: Piece, outside: list[nn.Module]) -> bool:
    """Whether a part that was told to keep to some blocks trains something in the others, or in no block at all."""
    model = piece.attached.module
    if isinstance(model, PeftModel) and model.active_peft_config.is_prompt_learning:
        return True
    own = {id(p) for group in piece.attached.groups for p in group.parameters}
    return any(id(p) in own for module in outside for p in module.parameters())
