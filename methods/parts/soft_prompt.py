"""What soft prompts need beyond `peft`: room for them, words to start from, and positions that count real tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedConfig

from methods.base.spec import Context, MethodError
from methods.parts.positions import number_real_tokens


def require_prompts(view: nn.Module) -> None:
    """Raise the one-line error of an architecture that takes no virtual tokens."""
    if getattr(view.config, "is_encoder_decoder", False):
        raise MethodError(f"{type(view).__name__} is an encoder-decoder, which takes no virtual tokens here")


def require_room(view: nn.Module, tokens: int, context: Context) -> None:
    """Raise the one-line error of virtual tokens that leave too few positions for the longest row.

    Where nobody knows how long rows get, one token of text must fit.
    """
    longest = longest_input(view)
    row = 1 if context.text is None else context.text.max_length
    if longest is not None and tokens + row > longest:
        room = f"it must be at most {longest - row}" if longest > row else "there is no room for any"
        rows = f"beside rows of up to {row} tokens {room}"
        raise MethodError(f"tokens is {tokens}; {rows}, since {type(view).__name__} takes {longest}")


def longest_input(view: nn.Module) -> int | None:
    """How many positions a model has; ``None`` where they are not limited."""
    text: PreTrainedConfig = view.config.get_text_config()  # type: ignore[operator, union-attr]
    longest: int | None = getattr(text, "max_position_embeddings", None)
    for name, module in view.named_modules():
        # RoBERTa and its relatives count from the padding's own position on
        if isinstance(module, nn.Embedding) and name.endswith("position_embeddings") and module.padding_idx is not None:
            longest = module.num_embeddings - module.padding_idx - 1
    return longest


def first_tokens(view: nn.Module, context: Context, count: int, text: str = "") -> Tensor:
    """Ids of tokens that a prompt may start from.

    Args:
        view: whose vocabulary they are of.
        context: whose words are used, where they are known.
        count: how many; fewer words are repeated.
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
        return torch.randint(0, embeddings.num_embeddings, (count,), device=device)
    return torch.tensor(ids, device=device).repeat(-(-count // len(ids)))[:count]


def start_from(model: PeftModel, weights: Tensor) -> None:
    """Let the virtual tokens of ``model`` begin as ``weights``, of shape ``(tokens, width)``.

    Raises:
        MethodError: if the architecture's differ in width from layer to layer.
    """
    embedding: nn.Embedding = model.prompt_encoder[model.active_adapter].embedding
    if embedding.weight.shape != weights.shape:
        shapes = f"of shape {tuple(weights.shape)} where {tuple(embedding.weight.shape)} is needed"
        raise MethodError(f"init is 'tokens', which gives pairs {shapes}; it must be zero or random here")
    with torch.no_grad():
        embedding.weight.copy_(weights)


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
    """Let positions count real tokens in every pass of `peft`'s model of a decoder, a generating one included."""
    number_real_tokens(model.get_base_model())
    if hasattr(model, "base_model_prepare_inputs_for_generation"):
        prepare = model.base_model_prepare_inputs_for_generation
        model.base_model_prepare_inputs_for_generation = _without_positions(prepare)


def _without_positions(prepare: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    def prepare_inputs(*args: Any, **kwargs: Any) -> dict[str, Any]:
        return {name: value for name, value in prepare(*args, **kwargs).items() if name != "position_ids"}

    return prepare_inputs
