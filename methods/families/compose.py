"""Several methods on one view: MAM (He et al., arXiv:2110.04366), UniPELT (arXiv:2110.07577), AutoPEFT (2301.12132).

Parts are attached in this order, and parts of one kind in the order of their names in the composition: methods that
train the backbone's own parameters; methods of `peft` in linear layers, first those that compute with the layer's
weight and then those that work on its output; methods that wrap layers themselves; soft prompts. Later parts wrap
earlier ones. The head trains at the composition's ``learning_rate``, each part at its own.
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
from methods.families.compose_combine import AttachedPart, combine
from methods.families.compose_names import parse
from methods.families.compose_params import CompositionParams, params_type

Specs = dict[str, MethodSpec[Any]]
# the methods of peft in linear layers that work on the layer's output, so that the layer may be one of peft itself
OUTPUT_METHODS = frozenset({"lora", "qlora", "adalora", "ia3"})


def spec(member: str) -> MethodSpec[CompositionParams]:
    """Return the method of a composition.

    Args:
        member: the parts, as in ``prefix+adapter`` or ``serial=adapter+parallel=adapter``.

    Raises:
        KeyError: if the method of a part does not exist.
        MethodError: if the parts cannot be combined.
    """
    try:
        parts = parse(member)
    except ValueError as error:
        raise MethodError(f"compose:{member}: {error}") from error
    specs: Specs = {part.name: get(part.method) for part in parts}
    if untrained := [name for name, part_spec in specs.items() if not part_spec.trains]:
        raise MethodError(f"compose:{member}: {untrained[0]} cannot be part of a composition: it trains nothing")
    return MethodSpec(
        name=f"compose:{member}",
        category=Category.COMPOSITION,
        reference="He et al. (2022), arXiv:2110.04366; Mao et al. (2022), arXiv:2110.07577",
        params_type=params_type(member, {name: part_spec.params_type for name, part_spec in specs.items()}),
        attach=partial(_attach, f"compose:{member}", specs),
        tasks=frozenset.intersection(*(part_spec.tasks for part_spec in specs.values())),
        starts_as_identity=all(part_spec.starts_as_identity for part_spec in specs.values()),
        supports_merge=all(part_spec.supports_merge for part_spec in specs.values()),
        needs_original=any(part_spec.needs_original for part_spec in specs.values()),
        original_for={
            f"{name}.{key}": values
            for name, part_spec in specs.items()
            for key, values in part_spec.original_for.items()
        },
    )


def _attach(method: str, specs: Specs, view: nn.Module, params: CompositionParams, context: Context) -> Attached:
    """Attach every part that is switched on, one after the other, and let the head train.

    Raises:
        MethodError: if a part cannot be attached, two parts exclude each other, or every part is off.
    """
    view_blocks = blocks(view)
    layers_of = {name: params.layers(name, len(view_blocks)) for name in specs}
    in_order = sorted(specs, key=lambda name: _attach_order(specs[name]))
    switched_on = [name for name in in_order if layers_of[name] != frozenset()]
    if not switched_on:
        raise MethodError(f"every part of {method} is switched off")
    parts: list[AttachedPart] = []
    for name in switched_on:
        layers = layers_of[name]
        part_context = replace(context, head=(), layers=layers)
        attached = _attach_part(view, name, specs[name], params.parts[name], part_context)
        part = AttachedPart(name, attached, params.parts[name].learning_rate / params.learning_rate)
        parts.append(part)
        if layers is not None:
            other_blocks = [block.module for index, block in enumerate(view_blocks) if index not in layers]
            if _trains_outside(part, other_blocks):
                reason = "sits in every layer and cannot be limited to some"
                raise MethodError(f"{name} {reason}; switch no layer off for it")
    return combine(method, view, parts, params, context)


def _attach_order(spec: MethodSpec[Any]) -> tuple[int, bool]:
    if spec.category is Category.SOFT_PROMPT:
        return 3, spec.peft
    if spec.category is Category.SELECTIVE:
        return 0, not spec.needs_original
    return (1 if spec.peft else 2), spec.name in OUTPUT_METHODS


def _attach_part(
    view: nn.Module, name: str, spec: MethodSpec[Any], params: Hyperparameters, context: Context
) -> Attached:
    before = set(view.modules())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "You are trying to modify a model with PEFT for a second time")
        try:
            attached = spec.attach(view, params, context)
        except MethodError as error:
            raise MethodError(f"{name}: {error}") from error
    if attached.source_steps(1000):
        raise MethodError(f"{name} cannot be part of a composition: it learns from other tasks before its own")
    if spec.name not in OUTPUT_METHODS and (layer := _wrapped_peft_layer(view, before)):
        raise MethodError(f"{name} computes with the weight of {layer}, which another part changes; take one of them")
    _clean_up_after_peft(view, attached.module)
    return attached


def _wrapped_peft_layer(view: nn.Module, before: set[nn.Module]) -> str:
    """Return the name of a layer of `peft` that a new layer of `peft` wraps; an empty string if there is none."""
    new = [(name, m) for name, m in view.named_modules() if isinstance(m, BaseTunerLayer) and m not in before]
    return next((name for name, m in new if isinstance(m._modules.get("base_layer"), BaseTunerLayer)), "")


def _clean_up_after_peft(view: nn.Module, model: nn.Module) -> None:
    """Remove what `peft` leaves on the view: its configuration, and copies of the head."""
    view.__dict__.pop("peft_config", None)  # the next tuner would write its configuration into this one's
    for name, module in list(view.named_modules()):
        if isinstance(module, ModulesToSaveWrapper):
            view.set_submodule(name, module.original_module)
    if isinstance(model, PeftModel):
        model.active_peft_config.modules_to_save = None


def _trains_outside(part: AttachedPart, other_blocks: list[nn.Module]) -> bool:
    """Return whether a part that is limited to some blocks trains parameters in the others, or a virtual token."""
    model = part.attached.module
    if isinstance(model, PeftModel) and model.active_peft_config.is_prompt_learning:
        return True
    part_ids = {id(p) for group in part.attached.groups for p in group.parameters}
    return any(id(p) in part_ids for module in other_blocks for p in module.parameters())
