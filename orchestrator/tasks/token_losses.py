"""Cross-entropy of the tokens that count, with the logits of a limited number of tokens in memory at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.tasks.output_head import OutputHead, states_and_head
from orchestrator.tasks.tokens import IGNORED_LABEL, device_of, model_inputs

if TYPE_CHECKING:
    from torch import Tensor, nn

CHUNK_LOGITS = 2**24
"""Logits in memory at a time: 64 MiB in float32, and as much again for each step of their computation."""


def next_token_losses(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the cross-entropy of every token that has a label.

    Other tokens have no logits. Where gradients are needed and the labelled tokens are more than one chunk, the
    backward pass computes each chunk's logits again.

    Returns:
        Losses in nats, of shape ``(labelled tokens,)``; and where those tokens are, of shape ``(rows, tokens - 1)``.
    """
    targets = batch["labels"][:, 1:].to(device_of(model))
    is_labelled = targets != IGNORED_LABEL
    states, head = states_and_head(model, model_inputs(model, batch))
    # Soft prompts have positions of their own before those of the tokens; what precedes a target is what predicts it.
    return _chunked_losses(head, states[:, -targets.shape[1] - 1 : -1][is_labelled], targets[is_labelled]), is_labelled


def target_losses(model: nn.Module, inputs: dict[str, Tensor], labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cross-entropy of every labelled target of an encoder-decoder, as :func:`next_token_losses` does.

    Args:
        model: Encoder-decoder with a language model's head.
        inputs: What it is called with, ``decoder_input_ids`` among them.
        labels: Targets of shape ``(rows, target tokens)``, one for each of the decoder's inputs.

    Returns:
        Losses in nats, of shape ``(labelled tokens,)``; and where those tokens are, of the labels' shape.
    """
    targets = labels.to(device_of(model))
    is_labelled = targets != IGNORED_LABEL
    states, head = states_and_head(model, inputs)
    return _chunked_losses(head, states[:, -targets.shape[1] :][is_labelled], targets[is_labelled]), is_labelled


def token_log_probabilities(
    model: nn.Module, batch: dict[str, Tensor], rows: Tensor, positions: Tensor, tokens: Tensor
) -> Tensor:
    """Return the log-probabilities of chosen tokens, without gradients; places with several of them are computed once.

    Args:
        model: Language model.
        batch: ``input_ids`` and ``attention_mask`` of shape ``(rows, tokens)``.
        rows: Row of each chosen token, shape ``(chosen,)``.
        positions: Position of the token before it, shape ``(chosen,)``.
        tokens: Its id, shape ``(chosen,)``.

    Returns:
        Float32 log-probabilities in nats, of shape ``(chosen,)``.
    """
    import torch

    width = batch["input_ids"].shape[1]
    with torch.no_grad():
        states, head = states_and_head(model, model_inputs(model, batch))
        places, place_of = torch.unique(rows * width + positions, return_inverse=True)
        chosen = states[:, -width:].flatten(0, 1)[places.to(states.device)]
        results = chosen.new_empty(len(tokens), dtype=torch.float32)
        size = _chunk_tokens(head)
        for first in range(0, len(places), size):
            logits = head.logits(chosen[first : first + size]).float().log_softmax(dim=-1)
            is_here = (place_of >= first) & (place_of < first + size)
            here = is_here.to(logits.device)
            results[here] = logits[(place_of[is_here] - first).to(logits.device), tokens[is_here].to(logits.device)]
    return results


def compute_logits(model: nn.Module, inputs: dict[str, Tensor]) -> None:
    """Compute the logits of all tokens, a chunk at a time, and keep none: to time a forward pass.

    Args:
        model: Model that has logits for every token.
        inputs: What it is called with.
    """
    states, head = states_and_head(model, inputs)
    for chunk in states.flatten(0, 1).split(_chunk_tokens(head)):
        head.logits(chunk)


def _chunk_tokens(head: OutputHead) -> int:
    return max(1, CHUNK_LOGITS // head.vocabulary)


def _chunked_losses(head: OutputHead, states: Tensor, targets: Tensor) -> Tensor:
    """Return the losses of tokens by their states, of shape ``(tokens, width)``."""
    import torch
    from torch.utils.checkpoint import checkpoint

    size = _chunk_tokens(head)
    if len(states) <= size:
        return _losses(head, states, targets)
    chunks = zip(states.split(size), targets.split(size), strict=True)
    if not torch.is_grad_enabled():
        return torch.cat([_losses(head, *chunk) for chunk in chunks])
    if not head.recomputable:
        return _losses(head, states, targets)
    return torch.cat([checkpoint(_losses, head, *chunk, use_reentrant=False) for chunk in chunks])


def _losses(head: OutputHead, states: Tensor, targets: Tensor) -> Tensor:
    from torch.nn import functional as F

    return F.cross_entropy(head.logits(states).float(), targets, reduction="none")
