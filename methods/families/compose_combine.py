"""The attached parts of a composition, combined to one :class:`~methods.base.spec.Attached`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from peft.tuners.ln_tuning.layer import LNTuningLayer
from peft.tuners.tuners_utils import BaseTuner
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from methods.base import adapter_folder
from methods.base.peft_adapter import ADAPTER, WEIGHTS
from methods.base.spec import Attached, Context, Hyperparameters, MethodError, ParameterGroup
from methods.base.trainable import train_head


@dataclass(frozen=True)
class AttachedPart:
    """A part on the view of its composition.

    Args:
        name: name of the part.
        attached: what the part's method returned.
        rate: learning rate of the part over the composition's.
    """

    name: str
    attached: Attached
    rate: float


def combine(
    method: str, view: nn.Module, parts: Sequence[AttachedPart], params: Hyperparameters, context: Context
) -> Attached:
    """Return one ``Attached`` for all parts and the head.

    Args:
        method: name of the composition.
        view: the view that all parts are attached to.
        parts: the parts in the order in which they were attached.
        params: parameters of the composition.
        context: the view's context.

    Raises:
        MethodError: if two parts both replace the model's forward pass.
    """
    module = _called_module(view, parts)
    heads = train_head(view, context)
    head = tuple(p for head_module in heads for p in head_module.parameters())
    groups = _groups(module, parts, head)
    trained = {part.name: [p for group in groups[part.name] for p in group.parameters] for part in parts}
    module.requires_grad_(False)
    for parameter in [*head, *(p for parameters in trained.values() for p in parameters)]:
        parameter.requires_grad_(True)

    def save(folder: Path) -> None:
        with _trainable_only(module, head):
            adapter_folder.save_trainable(folder, view, method, params, context)
        for part in parts:
            (folder / part.name).mkdir()
            with _trainable_only(module, trained[part.name]):
                part.attached.save(folder / part.name)
            other_parts = [p for name, parameters in trained.items() if name != part.name for p in parameters]
            _drop_tensors(folder / part.name / WEIGHTS, other_parts, view)

    def load(folder: Path) -> None:
        with _trainable_only(module, head):
            adapter_folder.load_trainable(folder, view)
        for part in parts:
            with _trainable_only(module, trained[part.name]):
                part.attached.load(folder / part.name)

    def merge() -> nn.Module:
        for part in parts:
            assert part.attached.merge is not None
            part.attached.merge()
        return view.requires_grad_(False).eval()

    def on_step(step: int, total: int) -> None:
        for part in parts:
            if part.attached.on_step is not None:
                part.attached.on_step(step, total)

    def penalty() -> Tensor:
        penalties = [part.attached.penalty() for part in parts if part.attached.penalty is not None]
        return torch.stack(penalties).sum()

    active = [*(m for part in parts for m in part.attached.active), *(m for head in heads for m in head.modules())]
    paged = any(part.attached.optimizer == "paged_adamw_8bit" for part in parts)
    return Attached(
        module=module,
        groups=tuple([group for part in parts for group in groups[part.name]] + [ParameterGroup(head)] * bool(head)),
        active=tuple(dict.fromkeys(active)),
        save=save,
        load=load,
        on_step=on_step if any(part.attached.on_step for part in parts) else None,
        merge=merge if all(part.attached.merge for part in parts) else None,
        state=lambda: _states(parts),
        load_state=lambda tensors: _load_states(parts, tensors),
        penalty=penalty if any(part.attached.penalty for part in parts) else None,
        optimizer="paged_adamw_8bit" if paged else "adamw",
    )


def _called_module(view: nn.Module, parts: Sequence[AttachedPart]) -> nn.Module:
    """Return the module to call: the view, or the module of the part that replaces the view's forward pass."""
    replacing = [part for part in parts if _replaces_forward(part.attached, view)]
    if len(replacing) > 1:
        names = f"{replacing[0].name} and {replacing[1].name}"
        raise MethodError(f"{names} both replace the model's forward pass; take one")
    return replacing[0].attached.module if replacing else view


def _replaces_forward(attached: Attached, view: nn.Module) -> bool:
    module = attached.module
    if module is view:
        return False
    view_ids = {id(p) for p in view.parameters()}
    if not isinstance(module, PeftModel) or any(id(p) not in view_ids for p in module.parameters()):
        return True
    # AdaLoRA's forward pass adds its penalty to the loss and nothing else; the composition adds the penalty itself
    return type(module.base_model).forward is not BaseTuner.forward and attached.penalty is None


def _groups(
    module: nn.Module, parts: Sequence[AttachedPart], head: Iterable[nn.Parameter]
) -> dict[str, list[ParameterGroup]]:
    """Return each part's parameters at its own rate, without those of the head, of earlier parts, or out of use."""
    replaced = {id(p) for m in module.modules() if isinstance(m, LNTuningLayer) for p in m.base_layer.parameters()}
    free = {id(p) for p in module.parameters()} - {id(p) for p in head} - replaced
    groups: dict[str, list[ParameterGroup]] = {}
    for part in parts:
        groups[part.name] = []
        for group in part.attached.groups:
            parameters = tuple(p for p in group.parameters if id(p) in free)
            free -= {id(p) for p in parameters}
            if parameters:
                groups[part.name].append(ParameterGroup(parameters, group.multiplier * part.rate))
    return groups


@contextmanager
def _trainable_only(module: nn.Module, parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Let ``parameters`` alone require gradients inside the context: methods save and load what requires them."""
    wanted_ids = {id(p) for p in parameters}
    switched_off = [p for p in module.parameters() if p.requires_grad and id(p) not in wanted_ids]
    for parameter in switched_off:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in switched_off:
            parameter.requires_grad_(True)


def _drop_tensors(file: Path, parameters: Iterable[nn.Parameter], view: nn.Module) -> None:
    """Remove ``parameters`` from a file of `peft`, which saves the tensors of all adapters called ``default``."""
    if file.exists():
        ids = {id(p) for p in parameters}
        names = [name for name, p in view.named_parameters() if id(p) in ids]
        dropped = {f"base_model.model.{name}".replace(f".{ADAPTER}", "") for name in names}
        save_file({name: tensor for name, tensor in load_file(file).items() if name not in dropped}, file)


def _states(parts: Sequence[AttachedPart]) -> dict[str, Tensor]:
    return {f"{p.name}.{name}": tensor for p in parts for name, tensor in p.attached.state().items()}


def _load_states(parts: Sequence[AttachedPart], tensors: dict[str, Tensor]) -> None:
    for part in parts:
        prefix = f"{part.name}."
        part.attached.load_state({n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)})
