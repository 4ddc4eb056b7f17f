"""Learned key-value pairs before those of the input, in every layer (Li & Liang, 2021, arXiv:2101.00190)."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from peft import PeftModel, PrefixTuningConfig
from torch import Tensor, nn
from transformers import DynamicCache

from methods.base import peft_adapter
from methods.base.spec import Attached, Category, Context, Hyperparameters, MethodError, MethodSpec
from methods.parts.soft_prompt import first_tokens, number_positions, require_prompts, require_room, start_from

INITS = ("zero", "random", "tokens")


@dataclass(frozen=True, kw_only=True)
class PrefixParams(Hyperparameters):
    """Parameters of prefix tuning.

    Args:
        tokens: key-value pairs per layer and head; they take room in the model's longest input.
        projection: whether a two-layer network makes them while training; only its result is saved.
        projection_width: of that network's middle.
        init: ``zero`` starts with pairs of zeros, which without a projection get equal gradients and stay equal to
            each other; ``random`` with a unit normal; ``tokens`` with the pairs that the frozen model computes for the
            classes' names, or for random tokens where there are none. A projection has its own initialization in place
            of the latter two.
    """

    learning_rate: float = 3e-3
    tokens: int = 20
    projection: bool = False
    projection_width: int = 128
    init: Literal["zero", "random", "tokens"] = "zero"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.tokens >= 1, "tokens", "at least 1")
        self.require(self.projection_width >= 1, "projection_width", "at least 1")
        self.require(self.init in INITS, "init", "zero, random or tokens")


def attach(view: nn.Module, params: PrefixParams, context: Context) -> Attached:
    """Put the pairs before every layer's own.

    Raises:
        MethodError: if the architecture takes no key-value pairs from outside, has too few positions, or is to take
            them in some of its blocks only.
    """
    require_prompts(view)
    require_cache(view)
    require_room(view, params.tokens, context)
    if context.layers is not None:
        raise MethodError("prefix sits in every block; deep_prompt can be given some of them")
    reads = params.init == "tokens" and not params.projection and context.fresh
    pairs = _pairs(view, params, context) if reads else None
    config = PrefixTuningConfig(
        num_virtual_tokens=params.tokens,
        prefix_projection=params.projection,
        encoder_hidden_size=params.projection_width,
        init_weights="zero" if params.init == "zero" else None,
    )
    attached = peft_adapter.attached(view, config, "prefix", params, context)
    if pairs is not None:
        start_from(attached.module, pairs)
    number_positions(attached.module)
    return replace(attached, load=lambda folder: _load(folder, attached.module))


@torch.no_grad()
def _pairs(view: nn.Module, params: PrefixParams, context: Context) -> Tensor:
    """What the frozen model computes for tokens, as `peft` lays it out: ``(tokens, layers * 2 * heads * width)``."""
    embeddings: nn.Embedding = view.get_input_embeddings()  # type: ignore[operator]
    inputs, cache = embeddings(first_tokens(view, context, params.tokens)), DynamicCache()
    _inner(view)(inputs_embeds=inputs[None], past_key_values=cache)
    layers: list[Any] = cache.layers
    pairs = torch.stack([pair[0] for layer in layers for pair in (layer.keys, layer.values)])
    return pairs.permute(2, 0, 1, 3).reshape(params.tokens, -1)


def _load(folder: Path, model: PeftModel) -> None:
    """Read the pairs; what the projection made is a plain prefix from here on."""
    encoder = model.prompt_encoder[peft_adapter.ADAPTER]
    if encoder.prefix_projection:
        config = model.active_peft_config
        width = 2 * config.num_layers * config.token_dim
        encoder.embedding = nn.Embedding(config.num_virtual_tokens, width)
        encoder.prefix_projection = config.prefix_projection = False
        del encoder.transform
    peft_adapter.load(folder, model)


def require_cache(view: nn.Module) -> None:
    """Raise the one-line error of an architecture that takes no key-value pairs from outside."""
    if not any("past_key_values" in inspect.signature(model.forward).parameters for model in (view, _inner(view))):
        raise MethodError(f"{type(view).__name__} takes no key-value pairs from outside, which a prefix needs")


def _inner(view: nn.Module) -> nn.Module:
    inner: nn.Module = getattr(view, getattr(view, "base_model_prefix", ""), view)
    return inner


SPEC = MethodSpec(
    name="prefix",
    category=Category.SOFT_PROMPT,
    reference="Li & Liang (2021), arXiv:2101.00190",
    params_type=PrefixParams,
    attach=attach,
    starts_as_identity=False,
    peft=True,
)
