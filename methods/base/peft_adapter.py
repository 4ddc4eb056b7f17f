"""The one place that calls `peft`: attach a config, save and load its folder, merge it."""

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

TASK_TYPES = {"classification": "SEQ_CLS", "causal-lm": "CAUSAL_LM"}
ADAPTER = "default"
WEIGHTS = "adapter_model.safetensors"
PEFT_HEADS = ("classifier", "score")  # which peft saves unasked
Grouping = Callable[[PeftModel], Sequence[ParameterGroup]]


def attached(
    view: nn.Module,
    config: PeftConfig,
    method: str,
    params: Hyperparameters,
    context: Context,
    *,
    groups: Grouping | None = None,
    merges: bool = False,
    reads_numbers: bool = False,
) -> Attached:
    """Put the adapter that ``config`` describes onto ``view``; its parameters train in float32, the head beside them.

    Args:
        view: changed in place.
        config: of the method; task type and head are filled in here.
        method: its name here.
        params: what ``config`` was built from.
        context: of the view.
        groups: splits the trainable parameters by learning rate; one group without it.
        merges: whether `peft` can fold this adapter into linear layers.
        reads_numbers: whether the adapter's shapes depend on the weights' numbers.

    Raises:
        MethodError: if `peft` refuses the architecture.
    """
    before = set(view.modules())
    model = _attach(view, config, context, reads_numbers)
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
    """As :func:`load`, with the tensors that stood in ``folder`` changed on the way.

    Raises:
        MethodError: if they are of another adapter.
    """
    try:
        result = set_peft_model_state_dict(model, tensors)
    except (KeyError, RuntimeError) as error:
        raise MethodError(f"{folder} does not fit this backbone: {str(error).splitlines()[0]}") from error
    if not model.active_peft_config.is_prompt_learning:  # those load their own tensors, strictly
        for name in [*result.unexpected_keys, *_untouched(model, set(result.missing_keys))]:
            raise MethodError(f"{folder} does not fit this backbone: {name} is on one side only")


def _untouched(model: nn.Module, missing: set[str]) -> list[str]:
    """What trains and was not in the file, under any of the names that layers share it by."""
    named = [(name, p) for name, p in model.named_parameters(remove_duplicate=False) if p.requires_grad]
    found = {p for name, p in named if name not in missing}
    return [name for name, p in named if p not in found]


def _attach(view: nn.Module, config: PeftConfig, context: Context, reads_numbers: bool) -> PeftModel:
    config.task_type = TASK_TYPES[context.task]
    widen_head(view, context)
    config.modules_to_save = [name for name in context.head if not name.endswith(PEFT_HEADS)] or None
    with lazy_weights(view, made_up=reads_numbers), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        try:
            model = get_peft_model(view, config)
        except (ValueError, AttributeError, KeyError) as error:
            reason = str(error).splitlines()[0]
            raise MethodError(f"peft cannot attach to {type(view).__name__}: {reason}") from error
    for name, parameter in model.named_parameters():
        if ".ranknum." in name:  # a count; peft makes it trainable when it moves it to where the backbone is
            parameter.requires_grad_(False)
    # peft fills this in from the model, which does not know where it came from, and warns if it stood there before
    model.peft_config[ADAPTER].base_model_name_or_path = context.backbone
    return model


def _trainable(model: nn.Module) -> tuple[nn.Parameter, ...]:
    return tuple(p for p in model.parameters() if p.requires_grad)


def _save(folder: Path, model: PeftModel, method: str, params: Hyperparameters, context: Context) -> None:
    # without embeddings, or peft looks the backbone up on the hub to see whether its vocabulary grew
    model.save_pretrained(str(folder), save_embedding_layers=False)
    save_method(folder, method, params, context)


def _merge(model: PeftModel) -> nn.Module:
    """Fold the adapter into linear layers of the module's own: `peft` would write into the shared ones."""
    merged: nn.Module = model.get_base_model()
    for name, layer in reversed(list(merged.named_modules())):  # what is inside another comes first
        if isinstance(layer, BaseTunerLayer):
            layer.base_layer = _plain(layer.get_base_layer())
            layer.merge()
            merged.set_submodule(name, layer.get_base_layer().to(merged.dtype))
        elif isinstance(layer, ModulesToSaveWrapper):
            merged.set_submodule(name, layer.modules_to_save[ADAPTER])
    return merged.requires_grad_(False).eval()


def _plain(layer: nn.Module) -> nn.Module:
    """A float32 copy that may be written; GPT-2's own kind of linear layer stays what it is."""
    if not isinstance(layer, nn.Linear):
        return copy.deepcopy(layer).float()
    plain = nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
    plain.weight = nn.Parameter(layer.weight.detach().to(torch.float32, copy=True), requires_grad=False)
    if layer.bias is not None:
        plain.bias = nn.Parameter(layer.bias.detach().to(torch.float32, copy=True), requires_grad=False)
    return plain
