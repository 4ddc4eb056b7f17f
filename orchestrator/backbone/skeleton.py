"""A backbone without its weights, or with few and random ones, to find out whether a method works on it."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from methods.base.spec import Context, Quantization
from orchestrator.backbone.checkpoint import freezable, matrix
from orchestrator.backbone.frozen import FrozenLinear
from orchestrator.backbone.pooler import remove_pooler
from orchestrator.backbone.shared import SharedBackbone, head_of, is_decoder, pad
from orchestrator.backbone.shrink import shallow, shrunk
from orchestrator.backbone.weights import PlainWeight, quantize
from orchestrator.tasks import TASK_TYPES

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


def skeleton(
    config: PretrainedConfig,
    auto_class: str,
    task: str,
    name: str,
    labels: int,
    quantization: Quantization = "none",
) -> SharedBackbone:
    """Build the backbone on the meta device, with all shapes and no weights.

    A classifier's head is everything outside its base model, which published checkpoints lack; a language model has no
    head that its checkpoint lacks.

    Raises:
        ValueError: if transformers has no ``auto_class`` of this architecture.
    """
    with torch.device("meta"):
        model = _model(config, auto_class, labels, torch.float32)
    model.set_experts_implementation("batched_mm")  # the only one that runs on the meta device, in any dtype
    return _shared(model, task, name, labels, quantization)


def largest_weight(config: PretrainedConfig, auto_class: str) -> int:
    """Return the size of the largest parameter in the checkpoint's dtype, in bytes.

    Raises:
        ValueError: if transformers has no ``auto_class`` of this architecture.
    """
    with torch.device("meta"):
        model = _model(config, auto_class, 0, _activation_dtype(config))
    return max(parameter.nbytes for parameter in model.parameters())


def shallow_skeletons(
    config: PretrainedConfig, auto_class: str, task: str, name: str, labels: int, quantization: Quantization
) -> Iterator[SharedBackbone]:
    """Yield skeletons with all widths and few layers, the fewest first, that have every kind of module."""
    kinds = _module_kinds(skeleton(config, auto_class, task, name, labels))
    for fewer in _buildable(shallow(config), auto_class, labels):
        candidate = skeleton(fewer, auto_class, task, name, labels, quantization)
        if _module_kinds(candidate) == kinds:
            yield candidate


def tiny_model(
    config: PretrainedConfig, auto_class: str, task: str, name: str, labels: int, quantization: Quantization
) -> SharedBackbone | None:
    """Build a small model with the same kinds of modules and random, quantized weights, which trains on a CPU.

    Returns:
        ``None`` where the architecture cannot be made small without losing some of its modules.
    """
    kinds = _module_kinds(skeleton(config, auto_class, task, name, labels))
    for small in _buildable(shrunk(config), auto_class, labels):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = _model(small, auto_class, labels, _activation_dtype(config))
        candidate = _shared(model, task, name, labels, quantization)
        if _module_kinds(candidate) == kinds:
            return candidate
    return None


def _model(config: PretrainedConfig, auto_class: str, labels: int, dtype: torch.dtype) -> PreTrainedModel:
    import transformers

    config = copy.deepcopy(config)
    config.name_or_path = ""  # as in a lane, and peft writes it into an adapter's model card
    if labels:
        config.num_labels = labels
        pad(config)
    model: PreTrainedModel = getattr(transformers, auto_class).from_config(config, dtype=dtype)
    remove_pooler(model, auto_class)
    model.requires_grad_(False).eval()
    return model


def _activation_dtype(config: PretrainedConfig) -> torch.dtype:
    """Return the checkpoint's dtype, in which activations between layers are computed."""
    return config.dtype if isinstance(config.dtype, torch.dtype) else torch.float32


def _buildable(configs: Iterator[PretrainedConfig], auto_class: str, labels: int) -> Iterator[PretrainedConfig]:
    """Yield the configurations that make a model; tried on the meta device, since unknown sizes may be large."""
    for config in configs:
        try:
            with torch.device("meta"):
                _model(config, auto_class, labels, torch.float32)
        except Exception:  # sizes that contradict each other fail anywhere in a constructor
            continue
        yield config


def _shared(model: PreTrainedModel, task: str, name: str, labels: int, quantization: Quantization) -> SharedBackbone:
    prefix = f"{model.base_model_prefix}."
    outside = {n.partition(".")[0] for n, _ in model.named_parameters() if not n.startswith(prefix)}
    fresh = tuple(sorted(outside)) if labels else ()
    original = _freeze(model, freezable(model, fresh), quantization)
    context = Context(
        task=task,
        task_type=TASK_TYPES[task].peft_task_type,
        backbone=name,
        head=head_of(model, fresh),
        original=original,
        quantization=quantization,
    )
    return SharedBackbone(model, context, fresh, is_decoder(model.config.to_dict()))


def _freeze(model: nn.Module, layers: list[str], quantization: Quantization) -> Callable[[str], Tensor]:
    """Replace the layers by frozen ones. Returns the function of original weights by name for :class:`Context`."""
    originals: dict[str, Tensor] = {}
    for position, name in enumerate(layers):
        layer = model.get_submodule(name)
        weight, bias = (
            matrix(layer, layer.get_parameter("weight").detach()),
            layer.bias if isinstance(layer.bias, nn.Parameter) else None,
        )
        originals[f"{name}.weight"] = weight
        packed = PlainWeight(weight) if weight.is_meta else quantize(weight, quantization, double=True)
        model.set_submodule(name, FrozenLinear(packed, bias, torch.float32, position))

    def original(parameter: str) -> Tensor:
        if parameter not in originals:
            originals[parameter] = model.get_parameter(parameter).detach()
        return originals[parameter].float()

    return original


def _module_kinds(backbone: SharedBackbone) -> set[str]:
    """Return the names of all modules and parameters, with ``#`` for the numbers of layers."""
    named = [*backbone.model.named_modules(), *backbone.model.named_parameters()]
    return {re.sub(r"\.\d+(?=\.|$)", ".#", name) for name, _ in named}
