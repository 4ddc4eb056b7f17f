"""Learned key-value pairs before those of the input, in every layer (Li & Liang, 2021, arXiv:2101.00190)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from peft import PeftModel, PrefixTuningConfig
from torch import Tensor, nn
from transformers import DynamicCache

from methods.base import peft_adapter
from methods.base.spec import Attached, Category, Context, Hyperparameters, MethodError, MethodSpec
from methods.parts.soft_prompt import (
    base_model,
    derive_peft_position_ids_from_mask,
    initial_token_ids,
    require_cache,
    require_positions,
    require_virtual_tokens,
    set_initial_prompt,
)

INITS = ("zero", "random", "tokens")


@dataclass(frozen=True, kw_only=True)
class PrefixParams(Hyperparameters):
    """Parameters of prefix tuning.

    Args:
        tokens: key-value pairs per layer and head; they use up positions of the model's longest input.
        projection: whether a two-layer network computes the pairs while training; only its output is saved.
        projection_width: hidden size of that network.
        init: initial pairs: ``zero``, which without a projection get equal gradients and stay equal to each other;
            ``random``, from a unit normal; ``tokens``, the pairs that the frozen model computes for the classes' names,
            or for random tokens where there are no classes. A projection has its own initialization in place of
            ``random`` and ``tokens``.
    """

    learning_rate: float = 3e-3
    tokens: int = 20
    projection: bool = False
    projection_width: int = 128
    init: Literal["zero", "random", "tokens"] = "zero"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_in_range("tokens", "projection_width")
        self.require(self.init in INITS, "init", "zero, random or tokens")


def attach(view: nn.Module, params: PrefixParams, context: Context) -> Attached:
    """Put the learned pairs before the keys and values of every layer.

    Raises:
        MethodError: if the architecture takes no key-value pairs from outside or has too few positions, or the context
            limits the method to some blocks.
    """
    require_virtual_tokens(view)
    require_cache(view)
    require_positions(view, params.tokens, context)
    if context.layers is not None:
        raise MethodError("prefix sits in every block; deep_prompt can be given some of them")
    from_tokens = params.init == "tokens" and not params.projection and context.fresh
    pairs = _token_pairs(view, params, context) if from_tokens else None
    config = PrefixTuningConfig(
        num_virtual_tokens=params.tokens,
        prefix_projection=params.projection,
        encoder_hidden_size=params.projection_width,
        init_weights="zero" if params.init == "zero" else None,
    )
    attached = peft_adapter.attach(view, config, "prefix", params, context)
    if pairs is not None:
        set_initial_prompt(attached.module, pairs)
    derive_peft_position_ids_from_mask(attached.module)
    return replace(attached, load=lambda folder: _load(folder, attached.module))


@torch.no_grad()
def _token_pairs(view: nn.Module, params: PrefixParams, context: Context) -> Tensor:
    """Return the frozen model's pairs for tokens in `peft`'s layout, ``(tokens, layers * 2 * heads * width)``."""
    embeddings: nn.Embedding = view.get_input_embeddings()  # type: ignore[operator]
    inputs, cache = embeddings(initial_token_ids(view, context, params.tokens)), DynamicCache()
    base_model(view)(inputs_embeds=inputs[None], past_key_values=cache)
    layers: list[Any] = cache.layers
    pairs = torch.stack([pair[0] for layer in layers for pair in (layer.keys, layer.values)])
    return pairs.permute(2, 0, 1, 3).reshape(params.tokens, -1)


def _load(folder: Path, model: PeftModel) -> None:
    """Read the pairs; a prefix that a projection computed is a plain one from now on."""
    encoder = model.prompt_encoder[peft_adapter.ADAPTER]
    if encoder.prefix_projection:
        config = model.active_peft_config
        width = 2 * config.num_layers * config.token_dim
        encoder.embedding = nn.Embedding(config.num_virtual_tokens, width)
        encoder.prefix_projection = config.prefix_projection = False
        del encoder.transform
    peft_adapter.load(folder, model)


SPEC = MethodSpec(
    name="prefix",
    category=Category.SOFT_PROMPT,
    reference="Li & Liang (2021), arXiv:2101.00190",
    params_type=PrefixParams,
    attach=attach,
    starts_as_identity=False,
    peft=True,
)
