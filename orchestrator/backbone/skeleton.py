"""A backbone without weights, to find out what a method would do to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from methods._base import Context, Quantization, TaskType
from orchestrator.backbone.checkpoint import freezable, matrix
from orchestrator.backbone.frozen import FrozenLinear
from orchestrator.backbone.shared import SharedBackbone, head_of, is_decoder
from orchestrator.backbone.weights import PlainWeight

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
    """
    import transformers

    if labels:
        config.num_labels = labels
    with torch.device("meta"):
        model: PreTrainedModel = getattr(transformers, auto_class).from_config(config)
    model.requires_grad_(False).eval()
    prefix = f"{model.base_model_prefix}."
    outside = {n.partition(".")[0] for n, _ in model.named_parameters() if not n.startswith(prefix)}
    fresh = tuple(sorted(outside)) if labels else ()
    for position, layer in enumerate(freezable(model, fresh)):
        _freeze(model, layer, position)

    def original(parameter: str) -> torch.Tensor:
        module, _, leaf = parameter.rpartition(".")
        tensor: torch.Tensor = getattr(model.get_submodule(module), leaf)
        return tensor.detach().float()

    context = Context(
        task=task, backbone=name, head=head_of(model, fresh), original=original, quantization=quantization
    )
    return SharedBackbone(model, context, fresh, is_decoder(config.to_dict()))


def _freeze(model: nn.Module, name: str, position: int) -> None:
    layer = model.get_submodule(name)
    bias = layer.bias if isinstance(layer.bias, nn.Parameter) else None
    model.set_submodule(name, FrozenLinear(PlainWeight(matrix(layer)), bias, torch.float32, position))
