"""The one file that a quantized backbone is kept in: safetensors, with the architecture in its metadata.

Keys are the parameters' names in the model. A frozen layer's weight ``NAME.weight`` is stored in parts,
``NAME.weight:PART``. The head is not stored: its size depends on the task.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from methods.base.spec import Quantization
from orchestrator.backbone.source import Source
from orchestrator.backbone.weights import FrozenWeight, quantize
from orchestrator.common.errors import InputError, Problem

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FORMAT = "1"


@dataclass(frozen=True)
class Header:
    """What a backbone file says of itself.

    Args:
        auto_class: the transformers class that builds the model, ``AutoModelForCausalLM`` for one.
        config: the architecture, as in the checkpoint's ``config.json``.
        frozen: the frozen layers, in the model's order.
        head: the modules that the checkpoint did not hold.
        parameters: how many the checkpoint holds.
    """

    auto_class: str
    config: dict[str, Any]
    frozen: tuple[str, ...]
    head: tuple[str, ...]
    parameters: int

    def metadata(self) -> dict[str, str]:
        """As safetensors keeps it."""
        return {"format": FORMAT, "header": json.dumps(self.__dict__)}

    @classmethod
    def read(cls, file: Path) -> Header:
        """From a backbone file."""
        with safe_open(file, framework="pt") as opened:
            fields = json.loads(opened.metadata()["header"])
        return cls(**{**fields, "frozen": tuple(fields["frozen"]), "head": tuple(fields["head"])})


def write(source: Source, auto_class: str, quantization: Quantization, double: bool, file: Path) -> Header:
    """Quantize a checkpoint, layer by layer, into ``file``.

    Raises:
        InputError: if transformers cannot load the checkpoint as ``auto_class``.
    """
    model, missing = _load(source, auto_class)
    head = _head(model, missing)
    tensors: dict[str, Tensor] = {}
    frozen, parameters = [], 0
    for name in freezable(model, head):
        layer = model.get_submodule(name)
        packed = quantize(matrix(layer), quantization, double)
        parts = packed.tensors() | packed.derived()
        tensors |= {f"{name}.weight:{part}": tensor for part, tensor in parts.items()}
        layer.register_parameter("weight", None)
        frozen.append(name)
        parameters += math.prod(packed.shape)
    others = _others(model, head)
    parameters += sum(tensor.numel() for tensor in others.values())
    tensors |= others
    header = Header(auto_class, json.loads(model.config.to_json_string()), tuple(frozen), head, parameters)
    save_file(tensors, file, metadata=header.metadata())
    return header


def _load(source: Source, auto_class: str) -> tuple[PreTrainedModel, set[str]]:
    import transformers
    from safetensors import SafetensorError

    arguments = {**source.arguments(), "dtype": "auto", "output_loading_info": True}
    if source.path.suffix != ".gguf":
        arguments["use_safetensors"] = True
    try:
        model, info = getattr(transformers, auto_class).from_pretrained(**arguments)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:  # cut off, or of another shape
        reason = str(error).strip().splitlines()[0]
        message = f"cannot be loaded as {auto_class}: {reason}"
        raise InputError("backbone.model", [Problem(source.name, message)]) from error
    return model.requires_grad_(False).eval(), set(info["missing_keys"])


def _head(model: PreTrainedModel, missing: set[str]) -> tuple[str, ...]:
    """The modules to train from scratch, outermost names: ``classifier``, not ``classifier.dense``."""
    prefix = f"{model.base_model_prefix}."
    inside = {name.rpartition(".")[0] for name in missing if name.startswith(prefix)}
    outside = {name.partition(".")[0] for name in missing if not name.startswith(prefix)}
    return tuple(sorted(inside | outside))


def freezable(model: PreTrainedModel, head: tuple[str, ...]) -> list[str]:
    """Linear layers to quantize: all but the head, poolers, output embeddings and what transformers keeps exact."""
    from transformers.pytorch_utils import Conv1D

    exact = {*(model._keep_in_fp32_modules or ()), "pooler"}
    output = model.get_output_embeddings()
    return [
        name
        for name, module in model.named_modules()
        if type(module) in (nn.Linear, Conv1D)
        and module is not output
        and not exact & set(name.split("."))
        and not any(name == part or name.startswith(f"{part}.") for part in head)
    ]


def matrix(layer: nn.Module) -> Tensor:
    """The weight as ``(out, in)``; GPT-2's Conv1D keeps its transpose."""
    weight: Tensor = layer.weight.data  # type: ignore[assignment]
    return weight if isinstance(layer, nn.Linear) else weight.T.contiguous()


def _others(model: nn.Module, head: tuple[str, ...]) -> dict[str, Tensor]:
    """Every parameter that is not quantized, tied ones once."""
    inside = tuple(f"{part}." for part in head)
    named = model.named_parameters()
    return {name: p.detach().contiguous() for name, p in named if not (inside and name.startswith(inside))}


def frozen_weights(tensors: dict[str, Tensor], frozen: tuple[str, ...], dtype: torch.dtype) -> dict[str, FrozenWeight]:
    """The packed weights among a file's tensors, by layer name, without copying."""
    from orchestrator.backbone.weights import restore

    parts: dict[str, dict[str, Tensor]] = {name: {} for name in frozen}
    for key, tensor in tensors.items():
        name, separator, part = key.partition(".weight:")
        if separator:
            parts[name][part] = tensor
    return {name: restore(found, dtype) for name, found in parts.items()}
