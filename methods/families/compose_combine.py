"""The parts of a composition, attached to one view, as one :class:`~methods.base.spec.Attached`."""

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
class Piece:
    """A part in its place.

    Args:
        name: the part's.
        attached: what its method gave.
        rate: its learning rate over the composition's.
    """

    name: str
    attached: Attached
    rate: float


def together(
    method: str, view: nn.Module, bridge: Sequence[Piece], params: Hyperparameters, context: Context
) -> Attached:
    """One method out of its parts and the head.

    Raises:
        MethodError: if two parts both replace the model's forward pass.
    """
    module = _outermost(view, bridge)
    heads = train_head(view, context)
    head = tuple(p for part in heads for p in part.parameters())
    groups = _groups(module, bridge, head)
    mine = {piece.name: [p for group in groups[piece.name] for p in group.parameters] for piece in bridge}
    module.requires_grad_(False)
    for parameter in [*head, *(p for own in mine.values() for p in own)]:
        parameter.requires_grad_(True)

    def save(folder: Path) -> None:
        with _only(module, head):
            adapter_folder.save_own(folder, view, method, params, context)
        for piece in bridge:
            (folder / piece.name).mkdir()
            with _only(module, mine[piece.name]):
                piece.attached.save(folder / piece.name)
            _drop(folder / piece.name / WEIGHTS, [p for name in mine if name != piece.name for p in mine[name]], view)

    def load(folder: Path) -> None:
        with _only(module, head):
            adapter_folder.load_own(folder, view)
        for piece in bridge:
            with _only(module, mine[piece.name]):
                piece.attached.load(folder / piece.name)

    def merge() -> nn.Module:
        for piece in bridge:
            assert piece.attached.merge is not None
            piece.attached.merge()
        return view.requires_grad_(False).eval()

    def on_step(step: int, total: int) -> None:
        for piece in bridge:
            if piece.attached.on_step is not None:
                piece.attached.on_step(step, total)

    def penalty() -> Tensor:
        found = [piece.attached.penalty() for piece in bridge if piece.attached.penalty is not None]
        return torch.stack(found).sum()

    active = [*(m for piece in bridge for m in piece.attached.active), *(m for head in heads for m in head.modules())]
    paged = any(piece.attached.optimizer == "paged_adamw_8bit" for piece in bridge)
    return Attached(
        module=module,
        groups=tuple([group for own in groups.values() for group in own] + [ParameterGroup(head)] * bool(head)),
        active=tuple(dict.fromkeys(active)),
        save=save,
        load=load,
        on_step=on_step if any(piece.attached.on_step for piece in bridge) else None,
        merge=merge if all(piece.attached.merge for piece in bridge) else None,
        state=lambda: _states(bridge),
        load_state=lambda tensors: _load_states(bridge, tensors),
        penalty=penalty if any(piece.attached.penalty for piece in bridge) else None,
        optimizer="paged_adamw_8bit" if paged else "adamw",
    )


def _outermost(view: nn.Module, bridge: Sequence[Piece]) -> nn.Module:
    """What is called: the view, unless a part has to be called in its stead."""
    outer = [piece for piece in bridge if _replaces(piece.attached, view)]
    if len(outer) > 1:
        raise MethodError(f"{outer[0].name} and {outer[1].name} both replace the model's forward pass; take one")
    return outer[0].attached.module if outer else view


def _replaces(attached: Attached, view: nn.Module) -> bool:
    module = attached.module
    if module is view:
        return False
    inside = {id(p) for p in view.parameters()}
    if not isinstance(module, PeftModel) or any(id(p) not in inside for p in module.parameters()):
        return True
    # one with a penalty adds nothing but that to the loss, which here is the composition's
    return type(module.base_model).forward is not BaseTuner.forward and attached.penalty is None


def _groups(
    module: nn.Module, bridge: Sequence[Piece], head: Iterable[nn.Parameter]
) -> dict[str, list[ParameterGroup]]:
    """Each part's parameters at its own rate: those still in use that neither the head nor an earlier part has."""
    replaced = {id(p) for m in module.modules() if isinstance(m, LNTuningLayer) for p in m.base_layer.parameters()}
    free = {id(p) for p in module.parameters()} - {id(p) for p in head} - replaced
    groups: dict[str, list[ParameterGroup]] = {}
    for piece in bridge:
        groups[piece.name] = []
        for group in piece.attached.groups:
            own = tuple(p for p in group.parameters if id(p) in free)
            free -= {id(p) for p in own}
            if own:
                groups[piece.name].append(ParameterGroup(own, group.multiplier * piece.rate))
    return groups


@contextmanager
def _only(module: nn.Module, parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """While inside, nothing else trains: what a method saves and loads is what trains."""
    kept = {id(p) for p in parameters}
    others = [p for p in module.parameters() if p.requires_grad and id(p) not in kept]
    for parameter in others:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in others:
            parameter.requires_grad_(True)


def _drop(file: Path, others: Iterable[nn.Parameter], view: nn.Module) -> None:
    """Take other parts' tensors out of a file of `peft`, which saves all that have the adapter's name."""
    if file.exists():
        ids = {id(p) for p in others}
        names = [name for name, p in view.named_parameters() if id(p) in ids]
        dropped = {f"base_model.model.{name}".replace(f".{ADAPTER}", "") for name in names}
        save_file({name: tensor for name, tensor in load_file(file).items() if name not in dropped}, file)


def _states(bridge: Sequence[Piece]) -> dict[str, Tensor]:
    return {f"{p.name}.{name}": tensor for p in bridge for name, tensor in p.attached.state().items()}


def _load_states(bridge: Sequence[Piece], tensors: dict[str, Tensor]) -> None:
    for piece in bridge:
        prefix = f"{piece.name}."
        piece.attached.load_state({n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)})
