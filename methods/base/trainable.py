"""How the methods of our own make parts of a view trainable without touching what is shared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from methods.base import adapter_folder
from methods.base.mixed_precision import MixedLinear
from methods.base.spec import Attached, Context, Hyperparameters, MethodError, ParameterGroup


def attached(
    view: nn.Module,
    method: str,
    params: Hyperparameters,
    context: Context,
    *,
    active: Iterable[nn.Module],
    groups: Sequence[ParameterGroup] | None = None,
    merge: Callable[[], nn.Module] | None = None,
) -> Attached:
    """The usual :class:`Attached` of a method whose adapter is the view's trainable parameters.

    Raises:
        MethodError: if nothing trains.
    """
    parameters = tuple(p for p in view.parameters() if p.requires_grad)
    if not parameters:
        raise MethodError(f"{method} finds nothing to train in {type(view).__name__}")
    return Attached(
        module=view,
        groups=tuple(groups) if groups is not None else (ParameterGroup(parameters),),
        active=tuple(active),
        save=lambda folder: adapter_folder.save_own(folder, view, method, params, context),
        load=lambda folder: adapter_folder.load_own(folder, view),
        merge=merge,
    )


def train_head(view: nn.Module, context: Context) -> list[nn.Module]:
    """Let the head train, in float32; it is the view's own already.

    Returns:
        its modules, one per name in ``context.head``.
    """
    heads = widen_head(view, context)
    for head in heads:
        head.requires_grad_(True)
    return heads


def widen_head(view: nn.Module, context: Context) -> list[nn.Module]:
    """Bring the head to float32, results included, whatever the backbone's stream is."""
    heads = [view.get_submodule(name) for name in context.head]
    for head in heads:
        head.float()
        compute_in_float32(head, narrow=False)
    return heads


def train_copies(view: nn.Module, modules: Iterable[nn.Module], context: Context) -> None:
    """Give ``modules`` trainable float32 parameters of their own, from the original checkpoint where theirs are packed.

    A parameter that is tied within the model is copied once and stays tied.

    Raises:
        MethodError: if the original checkpoint is not at hand.
    """
    inside = {part for module in modules for part in module.modules()}
    copies: dict[nn.Parameter, nn.Parameter] = {}
    for name, module in list(view.named_modules()):
        if module in inside:
            owner = _unpacked(view, name, module, context)
            for key, parameter in list(owner.named_parameters(recurse=False)):
                if not parameter.requires_grad:
                    if parameter not in copies:
                        copies[parameter] = nn.Parameter(parameter.detach().to(torch.float32, copy=True))
                    setattr(owner, key, copies[parameter])


def compute_in_float32(module: nn.Module, *, narrow: bool = True) -> None:
    """Cast what goes into ``module`` to float32, where the backbone's stream is narrower, and what comes out back.

    Args:
        module: one whose parameters are float32.
        narrow: whether the result goes back into the stream.
    """
    stream = [torch.float32]

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        floats = [x.dtype for x in (*args, *kwargs.values()) if isinstance(x, Tensor) and x.is_floating_point()]
        stream[0] = floats[0] if floats else torch.float32
        return _cast(args, torch.float32), _cast(kwargs, torch.float32)

    def after(_: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
        return _cast(output, stream[0])

    module.register_forward_pre_hook(before, with_kwargs=True)
    if narrow:
        module.register_forward_hook(after)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if type(value) in (tuple, list):
        return type(value)(_cast(item, dtype) for item in value)
    if type(value) is dict:
        return {key: _cast(item, dtype) for key, item in value.items()}
    return value


def _unpacked(view: nn.Module, name: str, module: nn.Module, context: Context) -> nn.Module:
    """The module, or a linear layer that can train in its place if it keeps its weight packed."""
    if not isinstance(module, nn.Linear) or "weight" in module._parameters:
        return module
    plain = MixedLinear(module.in_features, module.out_features, getattr(module, "compute_dtype", torch.float32))
    try:
        original = context.original(f"{name}.weight")
        device = next((p.device for p in view.parameters()), original.device)
        plain.weight = nn.Parameter(original.to(device, torch.float32, copy=True))
    except KeyError as error:
        raise MethodError(f"the original weights are needed: {error.args[0]}") from error
    plain.bias = module.bias
    plain.train(module.training)
    view.set_submodule(name, plain)
    return plain
