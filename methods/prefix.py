"""Learned key-value pairs before those of the input, in every layer (Li & Liang, 2021, arXiv:2101.00190)."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from peft import PeftModel, PrefixTuningConfig
from torch import nn

from methods import _peft
from methods._base import Attached, Category, Context, Hyperparameters, MethodError, MethodSpec
from methods._soft_prompt import number_positions, require_prompts


@dataclass(frozen=True, kw_only=True)
class PrefixParams(Hyperparameters):
    """Parameters of prefix tuning.

    Args:
        tokens: key-value pairs per layer and head.
        projection: whether a two-layer network makes them while training; only its result is saved.
        projection_width: of that network's middle.
        init: ``zero`` starts with pairs of zeros, ``random`` from a unit normal or the network's own initialization.
    """

    learning_rate: float = 3e-3
    tokens: int = 20
    projection: bool = False
    projection_width: int = 128
    init: Literal["zero", "random"] = "zero"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.tokens >= 1, "tokens", "at least 1")
        self.require(self.projection_width >= 1, "projection_width", "at least 1")
        self.require(self.init in ("zero", "random"), "init", "zero or random")


def attach(view: nn.Module, params: PrefixParams, context: Context) -> Attached:
    """Put the pairs before every layer's own.

    Raises:
        MethodError: if the architecture takes no key-value pairs from outside.
    """
    require_prompts(view)
    _require_cache(view)
    config = PrefixTuningConfig(
        num_virtual_tokens=params.tokens,
        prefix_projection=params.projection,
        encoder_hidden_size=params.projection_width,
        init_weights="zero" if params.init == "zero" else None,
    )
    attached = _peft.attached(view, config, "prefix", params, context)
    number_positions(attached.module)
    return replace(attached, load=lambda folder: _load(folder, attached.module))


def _load(folder: Path, model: PeftModel) -> None:
    """Read the pairs; what the projection made is a plain prefix from here on."""
    encoder = model.prompt_encoder[_peft.ADAPTER]
    if encoder.prefix_projection:
        config = model.active_peft_config
        width = 2 * config.num_layers * config.token_dim
        encoder.embedding = nn.Embedding(config.num_virtual_tokens, width)
        encoder.prefix_projection = config.prefix_projection = False
        del encoder.transform
    _peft.load(folder, model)


def _require_cache(view: nn.Module) -> None:
    inner = getattr(view, getattr(view, "base_model_prefix", ""), view)
    if not any("past_key_values" in inspect.signature(model.forward).parameters for model in (view, inner)):
        raise MethodError(f"{type(view).__name__} takes no key-value pairs from outside, which a prefix needs")


SPEC = MethodSpec(
    name="prefix",
    category=Category.SOFT_PROMPT,
    reference="Li & Liang (2021), arXiv:2101.00190",
    params_type=PrefixParams,
    attach=attach,
    starts_as_identity=False,
    peft=True,
)
