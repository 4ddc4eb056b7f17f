"""Learned key-value pairs in every self-attention, without reparameterization (Liu et al., 2021, arXiv:2110.07602).

With ``P_k, P_v`` of shape ``(heads, tokens, width)`` and the keys and values ``K, V`` of the input, a layer computes
``attention(Q, [P_k, K], [P_v, V])``. The pairs enter where transformers hands queries, keys and values to its
attention function, after rotary positions and before groups of queries share their keys. So they take no positions,
and need no cache: they work in encoders and in encoder-decoders alike.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.base.architecture import blocks
from methods.base.spec import Attached, Category, Context, Hyperparameters, MethodError, MethodSpec
from methods.base.trainable import attached, train_head
from methods.parts.attention_extension import (
    EXTENSION,
    Pairs,
    extend_attention,
    implementation,
    reads_twice,
    self_attentions,
    without_products,
)
from methods.parts.positions import number_real_tokens
from methods.parts.soft_prompt import first_tokens, longest_input

SMALL = 0.02


@dataclass(frozen=True, kw_only=True)
class DeepPromptParams(Hyperparameters):
    """Parameters of deep prompts.

    Args:
        tokens: key-value pairs per layer and head.
        init: ``small`` starts with keys near zero and values of zero, so that attention keeps its direction and loses
            what share of it falls to the pairs; ``tokens`` with what the frozen model computes for the classes' names,
            or for random tokens where there are none; ``random`` with a unit normal, as the paper's code.
        dropout: of the pairs.
    """

    learning_rate: float = 5e-3
    tokens: int = 20
    init: Literal["small", "tokens", "random"] = "small"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.tokens >= 1, "tokens", "at least 1")
        self.require(self.init in ("small", "tokens", "random"), "init", "small, tokens or random")
        self.require(0 <= self.dropout < 1, "dropout", "in 0..1, below 1")


class LearnedPairs(nn.Module):
    """The pairs of one attention module, in float32.

    Args:
        keys: of shape ``(heads, tokens, width)``.
        values: of shape ``(heads, tokens, width)``; an architecture may give them a width of their own.
        dropout: of single entries, while training.
    """

    def __init__(self, keys: Tensor, values: Tensor, dropout: float) -> None:
        super().__init__()
        self.keys, self.values, self.dropout = nn.Parameter(keys), nn.Parameter(values), dropout

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Pairs:
        """Keys and values of shape ``(batch, heads, tokens, width)`` with the pairs before them."""
        return self._before(self.keys, key), self._before(self.values, value)

    def _before(self, learned: Tensor, own: Tensor) -> Tensor:
        dropped = F.dropout(learned, self.dropout, self.training).to(own.dtype)
        return torch.cat([dropped.expand(len(own), -1, -1, -1), own], dim=2)


def attach(view: nn.Module, params: DeepPromptParams, context: Context) -> Attached:
    """Put pairs into the self-attention of every block that the method may sit in.

    Raises:
        MethodError: if the architecture does not compute attention through transformers' interface, or is too short
            to read the tokens that the pairs are to start from.
    """
    inside = [module for block in blocks(view, context.layers) for module in block.module.modules()]
    if any(hasattr(module, EXTENSION) for module in inside):
        raise MethodError("deep_prompt is attached already; give tokens for two instead")
    reads = params.init == "tokens" and context.fresh
    sites = _sites(view, inside, _inputs(view, params.tokens if reads else 1, context), reads)
    pairs = {site: LearnedPairs(*_start(found, params, reads), params.dropout) for site, found in sites.items()}
    for site, learned in pairs.items():
        site.add_module(EXTENSION, learned)
    number_real_tokens(view)
    heads = train_head(view, context)
    active = [*pairs.values(), *(part for head in heads for part in head.modules())]
    return attached(view, "deep_prompt", params, context, active=active)


def _inputs(view: nn.Module, tokens: int, context: Context) -> Tensor:
    """Embeddings that every self-attention sees ``tokens`` of or, in an encoder that is not alone, one more."""
    count, longest = tokens + reads_twice(view), longest_input(view)
    if longest is not None and count > longest:
        raise MethodError(f"tokens is {tokens}; to start from what {type(view).__name__} reads, {longest} is the most")
    embeddings: nn.Embedding = view.get_input_embeddings()  # type: ignore[operator]
    inputs: Tensor = embeddings(first_tokens(view, context, count))
    return inputs


def _sites(view: nn.Module, inside: list[nn.Module], inputs: Tensor, reads: bool) -> dict[nn.Module, Pairs]:
    """The self-attention modules among ``inside``, with keys and values of theirs."""
    used = implementation(view)
    extend_attention(view)
    try:
        with nullcontext() if reads else without_products(view):
            sites = self_attentions(view, inside, inputs)
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise MethodError(f"deep_prompt cannot try {type(view).__name__}: {reason}") from error
    if not sites:
        reason = f"computes attention ({used}) outside transformers' attention interface"
        raise MethodError(f"{type(view).__name__} {reason}, which deep_prompt needs")
    return sites


def _start(found: Pairs, params: DeepPromptParams, reads: bool) -> Pairs:
    """Keys and values to begin with: those found, cut to length, or drawn in their shapes."""
    if reads:
        keys, values = (pair[:, : params.tokens].float().contiguous() for pair in found)
        return keys, values
    keys, values = (torch.randn(len(pair), params.tokens, pair.shape[2], device=pair.device) for pair in found)
    return (SMALL * keys, torch.zeros_like(values)) if params.init == "small" else (keys, values)


SPEC = MethodSpec(
    name="deep_prompt",
    category=Category.SOFT_PROMPT,
    reference="Liu et al. (2021), arXiv:2110.07602",
    params_type=DeepPromptParams,
    attach=attach,
    starts_as_identity=False,
)
