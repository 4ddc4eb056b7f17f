"""Tools of methods that `peft` does not implement: make parts of a view trainable without writing to shared tensors."""

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
    """Return the :class:`Attached` of a method whose adapter is the view's trainable parameters.

    Args:
        view: the view with the method on it.
        method: name of the method.
        params: parameters of the method.
        context: the view's context.
        active: modules that are in training mode while training.
        groups: trainable parameters by learning rate; one group without it.
        merge: function that folds the adapter into plain weights, where the method can.

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
        save=lambda folder: adapter_folder.save_trainable(folder, view, method, params, context),
        load=lambda folder: adapter_folder.load_trainable(folder, view),
        merge=merge,
    )


def train_head(view: nn.Module, context: Context) -> list[nn.Module]:
    """Let the head train, in float32; every view has a head of its own already.

    Returns:
        the head's modules, one per name in ``context.head``.
    """
    heads = widen_head(view, context)
    for head in heads:
        head.requires_grad_(True)
    return heads


def widen_head(view: nn.Module, context: Context) -> list[nn.Module]:
    """Bring the head's parameters and outputs to float32, whatever the dtype of the backbone's stream; return it."""
    heads = [view.get_submodule(name) for name in context.head]
    for head in heads:
        head.float()
        compute_in_float32(head, restore_dtype=False)
    return heads


def train_copies(view: nn.Module, modules: Iterable[nn.Module], context: Context) -> None:
    """Replace the parameters of ``modules`` by trainable float32 copies, of the original weights where they are packed.

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


def compute_in_float32(module: nn.Module, *, restore_dtype: bool = True) -> None:
    """Cast the inputs of ``module`` to float32, and its outputs back to the dtype of the inputs.

    Args:
        module: a module with float32 parameters.
        restore_dtype: whether outputs are cast back; not for the head, whose logits stay float32.
    """
    stream = [torch.float32]

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        floats = [x.dtype for x in (*args, *kwargs.values()) if isinstance(x, Tensor) and x.is_floating_point()]
        stream[0] = floats[0] if floats else torch.float32
        return _cast(args, torch.float32), _cast(kwargs, torch.float32)

    def after(_: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
        return _cast(output, stream[0])

    module.register_forward_pre_hook(before, with_kwargs=True)
    if restore_dtype:
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
    """Return the module or, if it is a packed linear layer, put a trainable one into its place and return that."""
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
