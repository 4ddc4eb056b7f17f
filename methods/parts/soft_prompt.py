"""Tools of soft prompts that `peft` lacks: checks of the architecture, initial tokens, and correct position ids."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedConfig

from methods.base.position_ids import derive_position_ids_from_mask
from methods.base.spec import Context, MethodError


def require_virtual_tokens(view: nn.Module) -> None:
    """Raise the one-line error of an architecture that takes no virtual tokens."""
    if getattr(view.config, "is_encoder_decoder", False):
        raise MethodError(f"{type(view).__name__} is an encoder-decoder, which takes no virtual tokens here")


def require_cache(view: nn.Module) -> None:
    """Raise the one-line error of an architecture that takes no key-value pairs from outside."""
    models = (view, base_model(view))
    if not any("past_key_values" in inspect.signature(model.forward).parameters for model in models):
        raise MethodError(f"{type(view).__name__} takes no key-value pairs from outside, which a prefix needs")


def require_positions(view: nn.Module, tokens: int, context: Context) -> None:
    """Raise the one-line error of virtual tokens that leave too few positions for the longest row.

    Where the length of rows is unknown, one token of text must fit.
    """
    limit = max_positions(view)
    row = 1 if context.text is None else context.text.max_length
    if limit is not None and tokens + row > limit:
        bound = f"it must be at most {limit - row}" if limit > row else "no virtual token fits"
        reason = f"beside rows of up to {row} tokens {bound}"
        raise MethodError(f"tokens is {tokens}; {reason}, since {type(view).__name__} takes {limit} tokens")


def max_positions(view: nn.Module) -> int | None:
    """Return how many positions a model has; ``None`` where they are not limited."""
    text: PreTrainedConfig = view.config.get_text_config()  # type: ignore[operator, union-attr]
    limit: int | None = getattr(text, "max_position_embeddings", None)
    for name, module in view.named_modules():
        # RoBERTa and its relatives number positions from the padding's id on, so that they have fewer than configured
        if isinstance(module, nn.Embedding) and name.endswith("position_embeddings") and module.padding_idx is not None:
            limit = module.num_embeddings - module.padding_idx - 1
    return limit


def base_model(view: nn.Module) -> nn.Module:
    """Return the model inside its task's class, or the view where it has none."""
    base: nn.Module = getattr(view, getattr(view, "base_model_prefix", ""), view)
    return base


def initial_token_ids(view: nn.Module, context: Context, count: int, text: str = "") -> Tensor:
    """Return the ids of tokens from which a prompt is initialized.

    Args:
        view: view whose vocabulary is used.
        context: context whose tokenizer is used, where it is known.
        count: number of ids; shorter texts are repeated.
        text: the words; without any, the names of the classes.

    Returns:
        ids of shape ``(count,)``; random ones where there are no words.
    """
    embeddings: nn.Embedding = view.get_input_embeddings()  # type: ignore[operator]
    device = embeddings.weight.device
    words = "" if context.text is None else text or ", ".join(context.text.labels)
    ids: list[int] = []
    if context.text is not None and words:
        ids = context.text.tokenizer(words, add_special_tokens=False)["input_ids"]
    if not ids:
        return torch.randint(0, embeddings.num_embeddings, (count,)).to(device)
    return torch.tensor(ids, device=device).repeat(-(-count // len(ids)))[:count]


def set_initial_prompt(model: PeftModel, weights: Tensor) -> None:
    """Initialize the virtual tokens of ``model`` with ``weights``, of shape ``(tokens, width)``.

    Raises:
        MethodError: if the widths of the architecture's layers differ.
    """
    embedding: nn.Embedding = model.prompt_encoder[model.active_adapter].embedding
    if embedding.weight.shape != weights.shape:
        shapes = f"of shape {tuple(weights.shape)} where peft needs {tuple(embedding.weight.shape)}"
        raise MethodError(f"init is 'tokens', which gives pairs {shapes}; it must be zero or random here")
    with torch.no_grad():
        embedding.weight.copy_(weights)


def prompt_dimensions(view: nn.Module) -> dict[str, int]:
    """Return the sizes that `peft`'s prompts need; `peft` itself finds them in some configurations only."""
    text: PreTrainedConfig = view.config.get_text_config()  # type: ignore[operator, union-attr]
    embeddings: nn.Embedding = view.get_input_embeddings()  # type: ignore[operator]
    return {
        "token_dim": embeddings.embedding_dim,
        "num_layers": text.num_hidden_layers,
        "num_attention_heads": text.num_attention_heads,
    }


def derive_peft_position_ids_from_mask(model: PeftModel) -> None:
    """Make `peft`'s model of a decoder derive position ids from the attention mask, in generation as well."""
    derive_position_ids_from_mask(model.get_base_model())
    if hasattr(model, "base_model_prepare_inputs_for_generation"):
        prepare = model.base_model_prepare_inputs_for_generation
        model.base_model_prepare_inputs_for_generation = _without_position_ids(prepare)


def _without_position_ids(prepare: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    def prepare_inputs(*args: Any, **kwargs: Any) -> dict[str, Any]:
        return {name: value for name, value in prepare(*args, **kwargs).items() if name != "position_ids"}

    return prepare_inputs
