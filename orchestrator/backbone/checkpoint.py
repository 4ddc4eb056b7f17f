"""The file of a quantized backbone: safetensors, with the architecture in its metadata.

Keys are the parameters' names in the model. A frozen layer's weight ``NAME.weight`` is stored in parts,
``NAME.weight:PART``. The head is not stored, since its size depends
on the task.
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
    """The description of a backbone in its file's metadata.

    Args:
        auto_class: transformers class that builds the model, ``AutoModelForCausalLM`` for instance.
        config: architecture, as in the checkpoint's ``config.json``.
        frozen: names of the frozen layers, in the model's order.
        head: names of the modules that the checkpoint lacks.
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
    """Quantize a checkpoint into a file, layer by layer, so that one layer at a time is in memory twice.

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
    plain = _plain_parameters(model, head)
    parameters += sum(tensor.numel() for tensor in plain.values())
    tensors |= plain
    header = Header(auto_class, json.loads(model.config.to_json_string()), tuple(frozen), head, parameters)
    save_file(tensors, file, metadata=header.metadata())
    return header


def _load(source: Source, auto_class: str) -> tuple[PreTrainedModel, set[str]]:
    import transformers
    from safetensors import SafetensorError

    arguments = {**source.arguments(), "dtype": "auto", "output_loading_info": True}
    if source.path.suffix != ".gguf":
        arguments["use_safetensors"] = True
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()  # its table of missing keys; the head is expected to be among them
    try:
        model, info = getattr(transformers, auto_class).from_pretrained(**arguments)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:  # truncated, or other shapes
        reason = str(error).strip().splitlines()[0]
        message = f"cannot be loaded as {auto_class}: {reason}"
        raise InputError("backbone.model", [Problem(source.name, message)]) from error
    finally:
        transformers.logging.set_verbosity(verbosity)
    return model.requires_grad_(False).eval(), set(info["missing_keys"])


def _head(model: PreTrainedModel, missing: set[str]) -> tuple[str, ...]:
    """Return the outermost names of the modules that the checkpoint lacks: ``classifier``, not ``classifier.dense``."""
    prefix = f"{model.base_model_prefix}."
    inside = {name.rpartition(".")[0] for name in missing if name.startswith(prefix)}
    outside = {name.partition(".")[0] for name in missing if not name.startswith(prefix)}
    return tuple(sorted(inside | outside))


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


def matrix(layer: nn.Module) -> Tensor:
    """Return a layer's weight of shape ``(out, in)``; GPT-2's Conv1D stores its transpose."""
    weight: Tensor = layer.weight.data  # type: ignore[assignment]
    return weight if isinstance(layer, nn.Linear) else weight.T.contiguous()


def _plain_parameters(model: nn.Module, head: tuple[str, ...]) -> dict[str, Tensor]:
    """Return every parameter that is not quantized, by name; tied ones once, as safetensors refuses shared memory."""
    inside = tuple(f"{part}." for part in head)
    named = model.named_parameters()
    return {name: p.detach().contiguous() for name, p in named if not (inside and name.startswith(inside))}


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
