"""Position ids from the attention mask: they count real tokens, whatever padding precedes them."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn


def derive_position_ids_from_mask(model: nn.Module) -> None:
    """Make a decoder derive its position ids from the attention mask, by a hook, in calls that pass none.

    An encoder, or a decoder that takes no position ids, stays as it is.

    Decoders are padded on the left. With learned positions (GPT-2), or with virtual tokens or key-value pairs before
    the padding, a row's result would otherwise depend on the longest row of its batch. Rows without padding get the
    position ids of transformers.
    """
    # A hook on the outer model would be skipped: peft's AdaLoRA calls its forward method directly.
    inner: nn.Module = getattr(model, getattr(model, "base_model_prefix", ""), model)
    if is_decoder(model) and "position_ids" in inspect.signature(inner.forward).parameters:
        inner.register_forward_pre_hook(_add_position_ids, with_kwargs=True)


def is_decoder(model: nn.Module) -> bool:
    """Return whether attention is causal."""
    return any(getattr(module, "is_causal", False) for module in model.modules())


def _add_position_ids(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    mask, inputs = kwargs.get("attention_mask"), kwargs.get("inputs_embeds")
    inputs = kwargs.get("input_ids", args[0] if args else None) if inputs is None else inputs
    if kwargs.get("position_ids") is None and isinstance(mask, Tensor) and mask.dim() == 2 and inputs is not None:
        positions = (mask.long().cumsum(dim=1) - 1).clamp_min(0)
        kwargs["position_ids"] = positions[:, -inputs.shape[1] :]
    return args, kwargs
