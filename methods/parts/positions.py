"""Positions that count real tokens, whatever padding stands before them."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn


def number_real_tokens(model: nn.Module) -> None:
    """Derive position ids, where none are given, from the attention mask of a decoder.

    Decoders are padded on the left. Where positions are learned (GPT-2) or something stands before the padding
    (virtual tokens, key-value pairs), a row's result would otherwise depend on the batch that it is in. Rows without
    padding are numbered as transformers does it.
    """
    # the model inside: peft's AdaLoRA calls the outer one's forward past its hooks
    inner: nn.Module = getattr(model, getattr(model, "base_model_prefix", ""), model)
    if is_decoder(model) and "position_ids" in inspect.signature(inner.forward).parameters:
        inner.register_forward_pre_hook(_number, with_kwargs=True)


def is_decoder(model: nn.Module) -> bool:
    """Whether attention looks to the left only."""
    return any(getattr(module, "is_causal", False) for module in model.modules())


def _number(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    mask, inputs = kwargs.get("attention_mask"), kwargs.get("inputs_embeds")
    inputs = kwargs.get("input_ids", args[0] if args else None) if inputs is None else inputs
    if kwargs.get("position_ids") is None and isinstance(mask, Tensor) and mask.dim() == 2 and inputs is not None:
        positions = (mask.long().cumsum(dim=1) - 1).clamp_min(0)
        kwargs["position_ids"] = positions[:, -inputs.shape[1] :]
    return args, kwargs
