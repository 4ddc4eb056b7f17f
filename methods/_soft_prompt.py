"""What soft prompts need beyond `peft`: an architecture that takes them, and positions that count real tokens."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedConfig

from methods._base import MethodError


def require_prompts(view: nn.Module) -> None:
    """Raise the one-line error of an architecture that takes no virtual tokens."""
    if getattr(view.config, "is_encoder_decoder", False):
        raise MethodError(f"{type(view).__name__} is an encoder-decoder, which takes no virtual tokens here")


def dimensions(view: nn.Module) -> dict[str, int]:
    """What `peft` wants to know of a model for a prompt, under names that it reads from some configurations only."""
    text: PreTrainedConfig = view.config.get_text_config()  # type: ignore[operator, union-attr]
    embeddings: nn.Embedding = view.get_input_embeddings()  # type: ignore[operator]
    return {
        "token_dim": embeddings.embedding_dim,
        "num_layers": text.num_hidden_layers,
        "num_attention_heads": text.num_attention_heads,
    }


def number_positions(model: PeftModel) -> None:
    """Derive position ids from the attention mask in every pass of a decoder, a generating one included.

    Virtual tokens stand before the padding, so the distance from them to the text would otherwise grow with the
    padding, and a row's result would depend on the batch that it is in. Rows without padding are as in `peft`.
    """
    backbone: nn.Module = model.get_base_model()
    if not is_decoder(backbone) or "position_ids" not in inspect.signature(backbone.forward).parameters:
        return
    backbone.register_forward_pre_hook(_number, with_kwargs=True)
    if hasattr(model, "base_model_prepare_inputs_for_generation"):
        prepare = model.base_model_prepare_inputs_for_generation
        model.base_model_prepare_inputs_for_generation = _without_positions(prepare)


def is_decoder(model: nn.Module) -> bool:
    """Whether attention looks to the left only."""
    return any(getattr(module, "is_causal", False) for module in model.modules())


def _number(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    mask, inputs = kwargs.get("attention_mask"), kwargs.get("inputs_embeds")
    inputs = kwargs.get("input_ids") if inputs is None else inputs
    if isinstance(mask, Tensor) and mask.dim() == 2 and inputs is not None:
        positions = (mask.long().cumsum(dim=1) - 1).clamp_min(0)
        kwargs["position_ids"] = positions[:, -inputs.shape[1] :]
    return args, kwargs


def _without_positions(prepare: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    def prepare_inputs(*args: Any, **kwargs: Any) -> dict[str, Any]:
        return {name: value for name, value in prepare(*args, **kwargs).items() if name != "position_ids"}

    return prepare_inputs
