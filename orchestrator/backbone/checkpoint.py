"""The file of a quantized backbone: safetensors, with the architecture in its metadata.

Keys are the parameters' names in the model. A frozen layer's weight ``NAME.weight`` is stored in parts,
``NAME.weight:PART``. The head is not stored, since its size depends
on the task.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from methods.base.spec import Quantization
from orchestrator.backbone.checkpoint_reader import open_checkpoint
from orchestrator.backbone.examine import is_classifier
from orchestrator.backbone.source import Source
from orchestrator.backbone.tensor_file import TensorFileWriter, header_room
from orchestrator.backbone.weights import FrozenWeight, quantize
from orchestrator.common.errors import InputError, Problem

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FORMAT = "1"
MOST_PARTS, LONGEST_PART = 8, "{}.weight:quant_state.bitsandbytes__nf4"  # of a quantized weight


@dataclass(frozen=True)
class Header:
    """The description of a backbone in its file's metadata.

    Args:
        auto_class: transformers class that builds the model, ``AutoModelForCausalLM`` for instance.
        config: architecture, as in the checkpoint's ``config.json``.
        frozen: names of the frozen layers, in the model's order.
        head: names of the modules that are not in the file: what the checkpoint lacks, and a classifier's head.
        parameters: number of parameters in the checkpoint.
    """

    auto_class: str
    config: dict[str, Any]
    frozen: tuple[str, ...]
    head: tuple[str, ...]
    parameters: int

    def metadata(self) -> dict[str, str]:
        """Return the header as safetensors metadata."""
        return {"format": FORMAT, "header": json.dumps(self.__dict__)}

    @classmethod
    def read(cls, file: Path) -> Header:
        """Read the header of a backbone file."""
        with safe_open(file, framework="pt") as opened:
            fields = json.loads(opened.metadata()["header"])
        return cls(**{**fields, "frozen": tuple(fields["frozen"]), "head": tuple(fields["head"])})


def write(source: Source, auto_class: str, quantization: Quantization, double: bool, file: Path) -> Header:
    """Quantize a checkpoint into a file, one weight after the other.

    Where the checkpoint can be read so (:mod:`orchestrator.backbone.checkpoint_reader`), memory holds one weight at a
    time and its quantized parts.

    Raises:
        InputError: if transformers cannot load the checkpoint as ``auto_class``, or weights of its layers are missing.
    """
    with open_checkpoint(source, auto_class) as checkpoint:
        model, read = checkpoint.model, checkpoint.read
        _require_layers(source, model, checkpoint.missing)
        head = _head(model, auto_class, checkpoint.missing)
        frozen = tuple(freezable(model, head))
        config = json.loads(model.config.to_json_string())
        names = [name for name, _ in model.named_parameters()] + [LONGEST_PART.format(n) for n in frozen] * MOST_PARTS
        room = header_room(names, Header(auto_class, config, frozen, head, sys.maxsize).metadata())
        with TensorFileWriter(file, room) as output:
            parameters = 0
            for name in frozen:
                layer = model.get_submodule(name)
                packed = quantize(matrix(layer, read(f"{name}.weight")), quantization, double)
                for part, tensor in (packed.tensors() | packed.derived()).items():
                    output.add(f"{name}.weight:{part}", tensor)
                layer.register_parameter("weight", None)
                parameters += math.prod(packed.shape)
            for name in _plain_parameters(model, head):
                output.add(name, tensor := read(name))
                parameters += tensor.numel()
            header = Header(auto_class, config, frozen, head, parameters)
            output.finish(header.metadata())
    return header


def _head(model: PreTrainedModel, auto_class: str, missing: set[str]) -> tuple[str, ...]:
    """Return the outermost names of the modules that a task brings itself: ``classifier``, not ``classifier.dense``.

    Those are what the checkpoint lacks, and all of a classifier's head: that of a fine-tuned classifier is for the
    labels of another task.
    """
    prefix = f"{model.base_model_prefix}."
    if is_classifier(auto_class):
        missing = missing | {name for name, _ in model.named_parameters() if not name.startswith(prefix)}
    inside = {name.rpartition(".")[0] for name in missing if name.startswith(prefix)}
    outside = {name.partition(".")[0] for name in missing if not name.startswith(prefix)}
    return tuple(sorted(inside | outside))


def _require_layers(source: Source, model: PreTrainedModel, missing: set[str]) -> None:
    """Refuse a checkpoint without weights of the base model: transformers would draw them, and each trial train them.

    Poolers are missing as a matter of course.
    """
    # T5's language model has its encoder and decoder beside the output embedding, and no base model inside.
    prefix = f"{model.base_model_prefix}." if hasattr(model, model.base_model_prefix) else ""
    output = model.get_output_embeddings()
    outputs = {name for name, module in model.named_modules() if output is not None and module is output}
    lacking = sorted(
        name
        for name in missing
        if name.startswith(prefix) and "pooler" not in name.split(".") and name.rpartition(".")[0] not in outputs
    )
    if lacking:
        more = f" and {len(lacking) - 1:,} more" if lacking[1:] else ""
        message = f"its weights lack {lacking[0]}{more}, which the model has by its config.json"
        raise InputError("backbone.model", [Problem(source.name, message)])


def freezable(model: PreTrainedModel, head: tuple[str, ...]) -> list[str]:
    """Return the names of the linear layers to quantize.

    All but the head, poolers, the output embedding and what transformers keeps in float32: T5, for instance, reads the
    dtype of ``wo.weight`` in every forward pass, which would dequantize it each time.
    """
    from transformers.pytorch_utils import Conv1D

    unquantized = {*(model._keep_in_fp32_modules or ()), "pooler"}
    output = model.get_output_embeddings()
    return [
        name
        for name, module in model.named_modules()
        if type(module) in (nn.Linear, Conv1D)
        and module is not output
        and not unquantized & set(name.split("."))
        and not any(name == part or name.startswith(f"{part}.") for part in head)
    ]


def matrix(layer: nn.Module, weight: Tensor) -> Tensor:
    """Return a layer's weight with shape ``(out, in)``; GPT-2's Conv1D stores its transpose."""
    return weight if isinstance(layer, nn.Linear) else weight.T.contiguous()


def _plain_parameters(model: nn.Module, head: tuple[str, ...]) -> list[str]:
    """Return the names of all parameters that are not quantized; of tied ones, the first name alone."""
    inside = tuple(f"{part}." for part in head)
    return [name for name, _ in model.named_parameters() if not (inside and name.startswith(inside))]


def frozen_weights(tensors: dict[str, Tensor], frozen: tuple[str, ...], dtype: torch.dtype) -> dict[str, FrozenWeight]:
    """Return the packed weights among a file's tensors, by layer name, without copying.

    Args:
        tensors: all tensors of a backbone file.
        frozen: names of the frozen layers.
        dtype: dtype that the weights will be dequantized to.
    """
    from orchestrator.backbone.weights import restore

    parts: dict[str, dict[str, Tensor]] = {name: {} for name in frozen}
    for key, tensor in tensors.items():
        name, separator, part = key.partition(".weight:")
        if separator:
            parts[name][part] = tensor
    return {name: restore(tensors, dtype) for name, tensors in parts.items()}
