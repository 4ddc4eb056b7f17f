"""A backbone without its weights, to find out what a method would do to it."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from methods.base.spec import Context, Quantization, TaskType
from orchestrator.backbone.checkpoint import freezable, matrix
from orchestrator.backbone.frozen import FrozenLinear
from orchestrator.backbone.shared import SharedBackbone, head_of, is_decoder, pad
from orchestrator.backbone.shrink import shallow, shrunk
from orchestrator.backbone.weights import PlainWeight, quantize

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


def skeleton(
    config: PretrainedConfig,
    auto_class: str,
    task: TaskType,
    name: str,
    labels: int,
    quantization: Quantization = "none",
) -> SharedBackbone:
    """The backbone on the meta device: every shape, not a byte of weights.

    The head is taken to be what stands outside the base model of a classifier, which is what published
    checkpoints lack; nothing is missing from a language model.

    Raises:
        ValueError: if transformers has no ``auto_class`` of this architecture.
    """
    with torch.device("meta"):
        model = _model(config, auto_class, labels, torch.float32)
    model.set_experts_implementation("batched_mm")  # the only one that needs no numbers and takes any dtype
    return _shared(model, task, name, labels, quantization)


def shallow_skeletons(
    config: PretrainedConfig, auto_class: str, task: TaskType, name: str, labels: int, quantization: Quantization
) -> Iterator[SharedBackbone]:
    """Skeletons with real widths and few layers, the fewest first; those that have all kinds of modules."""
    wanted = _modules(skeleton(config, auto_class, task, name, labels))
    for fewer in _buildable(shallow(config), auto_class, labels):
        made = skeleton(fewer, auto_class, task, name, labels, quantization)
        if _modules(made) == wanted:
            yield made


def tiny_model(
    config: PretrainedConfig, auto_class: str, task: TaskType, name: str, labels: int, quantization: Quantization
) -> SharedBackbone | None:
    """The same modules, small, with random weights that are quantized as the backbone's will be; trains on a CPU.

    Returns:
        ``None`` where the architecture cannot be made small without losing some of its modules.
    """
    wanted = _modules(skeleton(config, auto_class, task, name, labels))
    for small in _buildable(shrunk(config), auto_class, labels):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = _model(small, auto_class, labels, _stream(config))
        made = _shared(model, task, name, labels, quantization)
        if _modules(made) == wanted:
            return made
    return None


def _model(config: PretrainedConfig, auto_class: str, labels: int, dtype: torch.dtype) -> PreTrainedModel:
    import transformers

    config = copy.deepcopy(config)
    config.name_or_path = ""  # as in a lane, and peft writes it into an adapter's model card
    if labels:
        config.num_labels = labels
        pad(config)
    model: PreTrainedModel = getattr(transformers, auto_class).from_config(config, dtype=dtype)
    model.requires_grad_(False).eval()
    return model


def _stream(config: PretrainedConfig) -> torch.dtype:
    """The dtype that the checkpoint is kept and its stream computed in."""
    return config.dtype if isinstance(config.dtype, torch.dtype) else torch.float32


def _buildable(configs: Iterator[PretrainedConfig], auto_class: str, labels: int) -> Iterator[PretrainedConfig]:
    """Those that make a model; on the meta device, since sizes that were not foreseen may be large."""
    for config in configs:
        try:
            with torch.device("meta"):
                _model(config, auto_class, labels, torch.float32)
        except Exception:  # sizes that do not fit one another fail anywhere in a constructor
            continue
        yield config


def _shared(
    model: PreTrainedModel, task: TaskType, name: str, labels: int, quantization: Quantization
) -> SharedBackbone:
    prefix = f"{model.base_model_prefix}."
    outside = {n.partition(".")[0] for n, _ in model.named_parameters() if not n.startswith(prefix)}
    fresh = tuple(sorted(outside)) if labels else ()
    original = _freeze(model, freezable(model, fresh), quantization)
    context = Context(
        task=task, backbone=name, head=head_of(model, fresh), original=original, quantization=quantization
    )
    return SharedBackbone(model, context, fresh, is_decoder(model.config.to_dict()))


def _freeze(model: nn.Module, layers: list[str], quantization: Quantization) -> Callable[[str], Tensor]:
    """Pack the layers; what is returned gives original weights by name, as :class:`Context` wants it."""
    originals: dict[str, Tensor] = {}
    for position, name in enumerate(layers):
        layer = model.get_submodule(name)
        weight, bias = matrix(layer), layer.bias if isinstance(layer.bias, nn.Parameter) else None
        originals[f"{name}.weight"] = weight
        packed = PlainWeight(weight) if weight.is_meta else quantize(weight, quantization, double=True)
        model.set_submodule(name, FrozenLinear(packed, bias, torch.float32, position))

    def original(parameter: str) -> Tensor:
        if parameter not in originals:
            originals[parameter] = model.get_parameter(parameter).detach()
        return originals[parameter].float()

    return original


def _modules(backbone: SharedBackbone) -> set[str]:
    """The names of all modules and parameters, with the numbers of layers folded away."""
    named = [*backbone.model.named_modules(), *backbone.model.named_parameters()]
    return {re.sub(r"\.\d+(?=\.|$)", ".#", name) for name, _ in named}
