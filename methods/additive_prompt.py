"""Learned vectors added to the embeddings of the input, ``f(x + p)`` where a prompt makes ``f([p, x])``.

This way to apply a soft prompt is known from reprogramming (Elsayed et al., 2019, arXiv:1806.11146): token ``i`` of a
row, padding not counted, gets vector ``i mod tokens``; a single vector shifts every token alike. No position is used
up, and zeros start as the identity. In an encoder-decoder, the vectors are added to the encoder's input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from methods.base.spec import Attached, Category, Context, Hyperparameters, MethodError, MethodSpec
from methods.base.trainable import attached, train_head


@dataclass(frozen=True, kw_only=True)
class AdditivePromptParams(Hyperparameters):
    """Parameters of an additive prompt.

    Args:
        tokens: number of vectors, which are used in turn.
    """

    learning_rate: float = 1e-2
    tokens: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_in_range("tokens")


class AdditivePrompt(nn.Module):
    """Vectors that are used in turn; float32, zero at the start.

    Args:
        tokens: number of vectors.
        width: size of an embedding.
    """

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.zeros(tokens, width))

    def forward(self, positions: Tensor, real: Tensor) -> Tensor:
        """Return the vectors for ``positions`` of shape ``(rows, tokens)``, and zeros where ``real`` is 0.

        Returns:
            vectors of shape ``(rows, tokens, width)``.
        """
        vectors: Tensor = self.vectors[positions % len(self.vectors)] * real[:, :, None]
        return vectors


def attach(view: nn.Module, params: AdditivePromptParams, context: Context) -> Attached:
    """Add the vectors to the output of the input embeddings, and let the head train.

    Raises:
        MethodError: if encoder and decoder share the module of their embeddings.
    """
    reader = _reader(view)
    embeddings: Any = reader.get_input_embeddings()  # type: ignore[operator]
    prompt = AdditivePrompt(params.tokens, embeddings.embedding_dim).to(embeddings.weight.device)
    embeddings.additive_prompt = prompt
    _register_hooks(reader, embeddings, prompt)
    heads = train_head(view, context)
    active = [prompt, *(part for head in heads for part in head.modules())]
    return attached(view, "additive_prompt", params, context, active=active)


def _reader(view: nn.Module) -> nn.Module:
    """Return the module that embeds the text and receives the text's attention mask."""
    config: Any = view.config
    if not config.is_encoder_decoder:
        return view
    encoder, decoder = view.get_encoder(), view.get_decoder()  # type: ignore[operator]
    if encoder.get_input_embeddings() is decoder.get_input_embeddings():
        raise MethodError(f"{type(view).__name__} embeds its input and its output in one module")
    return encoder  # type: ignore[no-any-return]


def _register_hooks(reader: nn.Module, embeddings: nn.Module, prompt: AdditivePrompt) -> None:
    """Add ``prompt`` to what the embeddings return, at the positions that the mask of ``reader`` gives."""
    inputs: list[dict[str, Any]] = []

    def begin(_: nn.Module, __: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        inputs[:] = [kwargs]

    def add(_: nn.Module, args: tuple[Tensor], output: Tensor) -> Tensor:
        if not inputs:
            raise MethodError("additive_prompt cannot number tokens that are embedded outside of the model")
        positions, real = _positions(args[0], inputs[0])
        vectors: Tensor = prompt(positions, real)
        return output + vectors.to(output.dtype)

    reader.register_forward_pre_hook(begin, with_kwargs=True)
    embeddings.register_forward_hook(add)
    reader.register_forward_hook(lambda *_: inputs.clear(), always_call=True)


def _positions(tokens: Tensor, kwargs: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Return the positions of ``tokens`` in their rows, cached tokens but no padding counted, and the tokens' mask."""
    mask, cache = kwargs.get("attention_mask"), kwargs.get("past_key_values")
    if mask is None or mask.dim() != 2:
        cached = 0 if cache is None else cache.get_seq_length()
        mask = torch.ones(len(tokens), cached + tokens.shape[1], dtype=torch.long, device=tokens.device)
    positions = (mask.long().cumsum(dim=1) - 1).clamp_min(0)
    return positions[:, -tokens.shape[1] :], mask[:, -tokens.shape[1] :]


SPEC = MethodSpec(
    name="additive_prompt",
    category=Category.SOFT_PROMPT,
    reference="Elsayed et al. (2019), arXiv:1806.11146",
    params_type=AdditivePromptParams,
    attach=attach,
)
