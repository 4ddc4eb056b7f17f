"""Learned key-value pairs in every self-attention, without reparameterization (Liu et al., 2021, arXiv:2110.07602).

With ``P_k, P_v`` of shape ``(heads, tokens, width)`` and the keys and values ``K, V`` of the input, a layer computes
``attention(Q, [P_k, K], [P_v, V])``. The pairs are added where transformers calls its attention function, after rotary
positions and before groups of queries share their keys. So they use up no positions and need no cache: they work in
encoders and in encoder-decoders alike.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.base.architecture import blocks
from methods.base.position_ids import derive_position_ids_from_mask
from methods.base.spec import Attached, Category, Context, Hyperparameters, MethodError, MethodSpec
from methods.base.trainable import attached, train_head
from methods.parts.attention_extension import (
    EXTENSION,
    Pairs,
    extend_attention,
    implementation,
    is_encoder_decoder,
    self_attention_pairs,
    without_matmul,
)
from methods.parts.soft_prompt import initial_token_ids, max_positions

SMALL_STD = 0.02


@dataclass(frozen=True, kw_only=True)
class DeepPromptParams(Hyperparameters):
    """Parameters of deep prompts.

    Args:
        tokens: key-value pairs per layer and head.
        init: initial pairs: ``small``, keys near zero and values of zero, so that attention keeps its direction and
            loses only the share that falls to the pairs; ``tokens``, the pairs that the frozen model computes for the
            classes' names, or for random tokens where there are no classes; ``random``, from a unit normal, as in the
            paper's code.
        dropout: dropout rate of the entries of the pairs.
    """

    learning_rate: float = 5e-3
    tokens: int = 20
    init: Literal["small", "tokens", "random"] = "small"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_in_range("tokens", "dropout")
        self.require(self.init in ("small", "tokens", "random"), "init", "small, tokens or random")


class LearnedPairs(nn.Module):
    """The pairs of one attention module, in float32.

    Args:
        keys: initial keys, of shape ``(heads, tokens, width)``.
        values: initial values, of shape ``(heads, tokens, width)``; their width may differ from the keys'.
        dropout: dropout rate of single entries.
    """

    def __init__(self, keys: Tensor, values: Tensor, dropout: float) -> None:
        super().__init__()
        self.keys, self.values, self.dropout = nn.Parameter(keys), nn.Parameter(values), dropout

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Pairs:
        """Return keys and values of shape ``(batch, heads, tokens, width)`` with the pairs before them."""
        return self._prepend(self.keys, key), self._prepend(self.values, value)

    def _prepend(self, learned: Tensor, computed: Tensor) -> Tensor:
        learned = F.dropout(learned, self.dropout, self.training).to(computed.dtype)
        return torch.cat([learned.expand(len(computed), -1, -1, -1), computed], dim=2)


def attach(view: nn.Module, params: DeepPromptParams, context: Context) -> Attached:
    """Put pairs into the self-attention of every block that the method may sit in.

    Raises:
        MethodError: if the architecture does not compute attention through transformers' interface, or has fewer
            positions than the tokens from which the pairs are initialized.
    """
    modules = [module for block in blocks(view, context.layers) for module in block.module.modules()]
    if any(hasattr(module, EXTENSION) for module in modules):
        raise MethodError("deep_prompt is attached already; attach it once, with more tokens")
    from_tokens = params.init == "tokens" and context.fresh
    inputs = _embedded_tokens(view, params.tokens if from_tokens else 1, context)
    computed_pairs = _self_attentions(view, modules, inputs, from_tokens)
    learned_pairs: dict[nn.Module, LearnedPairs] = {}
    for attention, pairs in computed_pairs.items():
        learned_pairs[attention] = LearnedPairs(*_initial_pairs(pairs, params, from_tokens), params.dropout)
        attention.add_module(EXTENSION, learned_pairs[attention])
    derive_position_ids_from_mask(view)
    heads = train_head(view, context)
    active = [*learned_pairs.values(), *(part for head in heads for part in head.modules())]
    return attached(view, "deep_prompt", params, context, active=active)


def _embedded_tokens(view: nn.Module, tokens: int, context: Context) -> Tensor:
    """Return embeddings of ``tokens`` tokens, in an encoder-decoder of one more, since its decoder reads one less."""
    count, limit = tokens + is_encoder_decoder(view), max_positions(view)
    if limit is not None and count > limit:
        reason = f"with init 'tokens' it must be at most {limit}, the positions of {type(view).__name__}"
        raise MethodError(f"tokens is {tokens}; {reason}")
    embeddings: nn.Embedding = view.get_input_embeddings()  # type: ignore[operator]
    inputs: Tensor = embeddings(initial_token_ids(view, context, count))
    return inputs


def _self_attentions(
    view: nn.Module, modules: list[nn.Module], inputs: Tensor, with_numbers: bool
) -> dict[nn.Module, Pairs]:
    """Return the self-attention modules among ``modules`` with their keys and values, or with zeros of their shapes."""
    attention_name = implementation(view)
    extend_attention(view)
    try:
        with nullcontext() if with_numbers else without_matmul(view):
            pairs = self_attention_pairs(view, modules, inputs)
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise MethodError(f"deep_prompt cannot run a forward pass of {type(view).__name__}: {reason}") from error
    if not pairs:
        reason = f"computes attention ({attention_name}) outside transformers' attention interface"
        raise MethodError(f"{type(view).__name__} {reason}, which deep_prompt needs")
    return pairs


def _initial_pairs(computed: Pairs, params: DeepPromptParams, from_tokens: bool) -> Pairs:
    """Return initial keys and values: the computed ones, cut to length, or random ones of their shapes."""
    if from_tokens:
        keys, values = (pair[:, : params.tokens].float().contiguous() for pair in computed)
        return keys, values
    keys, values = (torch.randn(len(pair), params.tokens, pair.shape[2]).to(pair.device) for pair in computed)
    return (SMALL_STD * keys, torch.zeros_like(values)) if params.init == "small" else (keys, values)


SPEC = MethodSpec(
    name="deep_prompt",
    category=Category.SOFT_PROMPT,
    reference="Liu et al. (2021), arXiv:2110.07602",
    params_type=DeepPromptParams,
    attach=attach,
    starts_as_identity=False,
)
