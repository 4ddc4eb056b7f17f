"""Attach a `peft` configuration to a view, save and load its folder, and merge it into plain layers."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from peft import PeftConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from safetensors.torch import load_file
from torch import Tensor, nn

from methods.base.adapter_folder import save_method
from methods.base.lazy_weights import lazy_weights
from methods.base.spec import Attached, Context, Hyperparameters, MethodError, ParameterGroup
from methods.base.trainable import widen_head

ADAPTER = "default"
WEIGHTS = "adapter_model.safetensors"
PEFT_HEADS = ("classifier", "score")  # peft saves modules of these names without being asked to
Grouping = Callable[[PeftModel], Sequence[ParameterGroup]]


def attach(
    view: nn.Module,
    config: PeftConfig,
    method: str,
    params: Hyperparameters,
    context: Context,
    *,
    groups: Grouping | None = None,
    merges: bool = False,
    shapes_need_numbers: bool = False,
) -> Attached:
    """Put the adapter that ``config`` describes onto ``view``; adapter and head train in float32.

    Args:
        view: view of the backbone, changed in place.
        config: configuration of `peft`; its task type and head are set here.
        method: name of the method.
        params: parameters that ``config`` was built from.
        context: the view's context.
        groups: function that splits the trainable parameters by learning rate; one group without it.
        merges: whether `peft` can fold this adapter into linear layers.
        shapes_need_numbers: whether the adapter's shapes depend on the numbers of the weights.

    Raises:
        MethodError: if `peft` refuses the architecture.
    """
    before = set(view.modules())
    model = _wrap(view, config, context, shapes_need_numbers)
    for parameter in _trainable(model):
        parameter.data = parameter.data.float()
    return Attached(
        module=model,
        groups=tuple(groups(model)) if groups else (ParameterGroup(_trainable(model)),),
        active=tuple(module for module in model.modules() if module not in before),
        save=lambda folder: _save(folder, model, method, params, context),
        load=lambda folder: load(folder, model),
        merge=(lambda: _merge(model)) if merges else None,
    )


def load(folder: Path, model: PeftModel) -> None:
    """Read the tensors of a saved adapter into an attached model of the same config.

    Raises:
        MethodError: if the folder holds another adapter.
    """
    load_tensors(load_file(folder / WEIGHTS), model, folder)


def load_tensors(tensors: dict[str, Tensor], model: PeftModel, folder: Path) -> None:
    """Copy tensors that were read from ``folder``, and perhaps changed since, into an attached model.

    Raises:
        MethodError: if they belong to another adapter.
    """
    try:
        result = set_peft_model_state_dict(model, tensors)
    except (KeyError, RuntimeError) as error:
        raise MethodError(f"{folder} does not fit this backbone: {str(error).splitlines()[0]}") from error
    if not model.active_peft_config.is_prompt_learning:  # peft loads prompts strictly by itself
        for name in [*result.unexpected_keys, *_not_loaded(model, set(result.missing_keys))]:
            raise MethodError(f"{folder} does not fit this backbone: {name} is on one side only")


def _not_loaded(model: nn.Module, missing: set[str]) -> list[str]:
    """Return the trainable parameters that the file lacks; a shared one may be in it under any of its names."""
    named = [(name, p) for name, p in model.named_parameters(remove_duplicate=False) if p.requires_grad]
    loaded = {p for name, p in named if name not in missing}
    return [name for name, p in named if p not in loaded]


def _wrap(view: nn.Module, config: PeftConfig, context: Context, shapes_need_numbers: bool) -> PeftModel:
    config.task_type = context.task_type
    widen_head(view, context)
    config.modules_to_save = [name for name in context.head if not name.endswith(PEFT_HEADS)] or None
    with lazy_weights(view, random_numbers=shapes_need_numbers), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        try:
            model = get_peft_model(view, config)
        except (ValueError, AttributeError, KeyError) as error:
            reason = str(error).splitlines()[0]
            raise MethodError(f"peft cannot attach to {type(view).__name__}: {reason}") from error
    for name, parameter in model.named_parameters():
        if ".ranknum." in name:  # AdaLoRA's count; peft makes it trainable when it moves it to the backbone's device
            parameter.requires_grad_(False)
    # peft sets this from the view, which does not know its origin, and warns if the config has it beforehand
    model.peft_config[ADAPTER].base_model_name_or_path = context.backbone
    return model


def _trainable(model: nn.Module) -> tuple[nn.Parameter, ...]:
    return tuple(p for p in model.parameters() if p.requires_grad)


def _save(folder: Path, model: PeftModel, method: str, params: Hyperparameters, context: Context) -> None:
    # with embeddings, peft would look the backbone up on the hub to see whether its vocabulary grew
    model.save_pretrained(str(folder), save_embedding_layers=False)
    save_method(folder, method, params, context)


def _merge(model: PeftModel) -> nn.Module:
    """Fold the adapter into copies of the linear layers; `peft` alone would write into the shared ones."""
    merged: nn.Module = model.get_base_model()
    for name, layer in reversed(list(merged.named_modules())):  # inner layers before those around them
        if isinstance(layer, BaseTunerLayer):
            layer.base_layer = _float32_copy(layer.get_base_layer())
            layer.merge()
            merged.set_submodule(name, layer.get_base_layer().to(merged.dtype))
        elif isinstance(layer, ModulesToSaveWrapper):
            merged.set_submodule(name, layer.modules_to_save[ADAPTER])
    return merged.requires_grad_(False).eval()


def _float32_copy(layer: nn.Module) -> nn.Module:
    """Return a float32 copy that may be written to; GPT-2's Conv1D keeps its class."""
    if not isinstance(layer, nn.Linear):
        return copy.deepcopy(layer).float()
    plain = nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
    plain.weight = nn.Parameter(layer.weight.detach().to(torch.float32, copy=True), requires_grad=False)
    if layer.bias is not None:
        plain.bias = nn.Parameter(layer.bias.detach().to(torch.float32, copy=True), requires_grad=False)
    return plain
