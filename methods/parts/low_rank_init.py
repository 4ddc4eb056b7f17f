"""Initializations of a low-rank update other than zero, without writing to the frozen weight.

PiSSA (Meng et al., 2024, arXiv:2404.02948) and OLoRA (Büyükakyüz, 2024, arXiv:2406.01775) initialize ``B A`` as a part
of ``W`` and store the rest in the frozen layer. Here the frozen layer is shared by many trials: `peft`'s write would be
lost without an error. So ``W`` stays whole, and the part is subtracted beside it: ``W + s B A - s B0 A0`` with frozen
``A0`` and ``B0``. This equals a LoRA of twice the rank, ``[B, B0]`` and ``[A; -A0]``, and is saved as one.

LoftQ (Li et al., 2023, arXiv:2310.08659) initializes ``s B A`` as the best approximation of the quantization error of
``W``; nothing needs to be subtracted. Only the first of its alternating steps is done: the later ones quantize the
weight anew, which a shared backbone does not allow.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from methods.base import peft_adapter
from methods.base.lazy_weights import lazy_weights
from methods.base.spec import Attached, Context, MethodError
from methods.parts.low_rank import LowRankParams, updated_layers

START = "start"  # peft's name of the frozen second update that holds A0 and B0
OVERSAMPLING, POWER_ITERATIONS = 8, 4  # of a randomized decomposition (Halko et al., 2011, arXiv:0909.4061)
Factors = tuple[Tensor, Tensor]


def principal_factors(weight: Tensor, rank: int, scale: float) -> Factors:
    """Return ``A`` and ``B`` for which ``scale * B A`` is the best approximation of ``weight`` with that rank.

    Args:
        weight: matrix of shape ``(out, in)``.
        rank: rank of the approximation, at most ``min(out, in)``.
        scale: factor of ``B A``, above 0.
    """
    columns = rank + OVERSAMPLING
    if 2 * columns < min(weight.shape):
        left, values, right = torch.svd_lowrank(weight, q=columns, niter=POWER_ITERATIONS)
        right = right.T
    else:  # a sketch would be about as large as the weight
        left, values, right = torch.linalg.svd(weight, full_matrices=False)
    root = (values[:rank] / scale).sqrt()
    return root[:, None] * right[:rank], left[:, :rank] * root


def orthonormal_factors(weight: Tensor, rank: int) -> Factors:
    """Return the first rows of ``R`` as ``A`` and the first columns of ``Q`` as ``B``, for ``weight = Q R``."""
    basis = torch.linalg.qr(weight[:, :rank]).Q  # Q's first columns depend on no others of the weight
    return basis.T @ weight, basis


def init_from_weight(attached: Attached, init: str, params: LowRankParams, context: Context) -> Attached:
    """Initialize the update as a part of each weight, and subtract that part beside it.

    Args:
        attached: fresh low-rank update.
        init: ``pissa`` or ``olora``.
        params: parameters of the update.
        context: the view's context.
    """
    model = attached.module
    with lazy_weights(model):
        for _, layer in updated_layers(model):
            _add_start(layer, params)
    if context.fresh:
        for _, layer in updated_layers(model):
            weight = layer.get_base_layer().weight.detach().float()
            if weight.device.type != "meta":
                a, b = _weight_factors(weight, init, params)
                _write(layer, peft_adapter.ADAPTER, (a, b))
                _write(layer, START, (-a, b))
    return replace(
        attached,
        save=lambda folder: _save(folder, attached.save, model, params),
        load=lambda folder: _load(folder, model, params.rank),
        state=lambda: _starts(model),
        load_state=lambda tensors: _load_starts(model, tensors),
    )


def init_from_quantization_error(attached: Attached, params: LowRankParams, context: Context) -> Attached:
    """Initialize the update as the best approximation of each weight's quantization error.

    A layer that is not quantized has no error and is initialized as usual.

    Raises:
        MethodError: if the backbone is not quantized, or its original weights are not available.
    """
    if context.quantization == "none":
        raise MethodError(
            "init is 'loftq', which corrects quantization, but the backbone is not quantized; write init: default"
        )
    for name, layer in updated_layers(attached.module):
        base = layer.get_base_layer()
        if context.fresh and "weight" not in base._parameters:
            quantized = base.weight.detach().float()
            if quantized.device.type != "meta":
                error = _original(name, context).to(quantized) - quantized
                _write(layer, peft_adapter.ADAPTER, principal_factors(error, params.rank, params.scale))
    return attached


def _weight_factors(weight: Tensor, init: str, params: LowRankParams) -> Factors:
    if init == "pissa":
        return principal_factors(weight, params.rank, params.scale)
    return orthonormal_factors(weight, params.rank)


def _original(name: str, context: Context) -> Tensor:
    try:
        return context.original(f"{name}.weight")
    except KeyError as error:
        raise MethodError(f"init is 'loftq' and needs the original weights: {error.args[0]}") from error


def _add_start(layer: LoraLayer, params: LowRankParams) -> None:
    """Add a second, frozen update that is active beside the first; without dropout, since it corrects the weight."""
    config = LoraConfig(r=params.rank, use_rslora=params.rslora, init_lora_weights=False)
    layer.update_layer(START, params.rank, params.alpha, config=config)
    layer.set_adapter([peft_adapter.ADAPTER, START])
    for factor in (layer.lora_A[START], layer.lora_B[START]):
        factor.requires_grad_(False).eval().float()


@torch.no_grad()
def _write(layer: LoraLayer, adapter: str, factors: Factors) -> None:
    layer.lora_A[adapter].weight.copy_(factors[0])
    layer.lora_B[adapter].weight.copy_(factors[1])


def _factors(layer: LoraLayer) -> dict[str, nn.Parameter]:
    return {"lora_A": layer.lora_A[START].weight, "lora_B": layer.lora_B[START].weight}


def _starts(model: PeftModel) -> dict[str, Tensor]:
    layers = updated_layers(model)
    return {f"{name}.{key}": factor.detach() for name, layer in layers for key, factor in _factors(layer).items()}


@torch.no_grad()
def _load_starts(model: PeftModel, tensors: dict[str, Tensor]) -> None:
    for name, layer in updated_layers(model):
        for key, factor in _factors(layer).items():
            factor.copy_(tensors[f"{name}.{key}"])


def _save(folder: Path, save_update: Callable[[Path], None], model: PeftModel, params: LowRankParams) -> None:
    """Write one plain LoRA of twice the rank and the same scale."""
    save_update(folder)
    tensors = {key: t for key, t in load_file(folder / peft_adapter.WEIGHTS).items() if f".{START}." not in key}
    for name, start in _starts(model).items():
        key = f"base_model.model.{name}.weight"
        tensors[key] = torch.cat([tensors[key], start.cpu()], dim=0 if name.endswith("lora_A") else 1)
    save_file(tensors, folder / peft_adapter.WEIGHTS, metadata={"format": "pt"})
    file = folder / "adapter_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config["r"] = 2 * params.rank
    config["lora_alpha"] = params.scale * (math.sqrt(config["r"]) if params.rslora else config["r"])
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _load(folder: Path, model: PeftModel, rank: int) -> None:
    tensors, starts = load_file(folder / peft_adapter.WEIGHTS), {}
    for name in _starts(model):
        key, dim = f"base_model.model.{name}.weight", 0 if name.endswith("lora_A") else 1
        if key not in tensors or tensors[key].shape[dim] != 2 * rank:
            raise MethodError(f"{folder} does not fit this backbone: {key} is not an update of rank {2 * rank}")
        tensors[key], starts[name] = tensors[key].split(rank, dim)
    peft_adapter.load_tensors(tensors, model, folder)
    _load_starts(model, starts)
