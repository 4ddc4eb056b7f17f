"""Losses of vectors that compare every row of a batch with all others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

TEMPERATURE = 0.05
"""What cosines are divided by in both losses, as SimCSE and sentence-transformers do."""


def text_numbers(texts: Sequence[NDArray[np.int32]]) -> list[int]:
    """Return the position of the first text with the same tokens, for each text."""
    numbers: dict[bytes, int] = {}
    return [numbers.setdefault(text.tobytes(), place) for place, text in enumerate(texts)]


def in_batch_loss(vectors: Tensor, numbers: Tensor) -> Tensor:
    """Return the mean cross-entropy of finding each anchor's positive among all candidates of the batch.

    The candidates are the positives and negatives of all rows (van den Oord et al., 2018, arXiv:1807.03748). Only the
    direction that is scored is trained: from anchor to candidate. What belongs to an anchor does not count against it:
    texts equal to its positive or to itself, and the positives of other rows with the same anchor.

    Args:
        vectors: Vectors of length 1, of shape ``(texts per row, rows, width)``: anchors, positives, negatives.
        numbers: Numbers that equal texts share, of shape ``(rows, texts per row)``.
    """
    import torch
    from torch.nn import functional as F

    rows = vectors.shape[1]
    logits = vectors[0] @ vectors[1:].flatten(0, 1).T / TEMPERATURE
    candidates, anchors = numbers[:, 1:].T.flatten(), numbers[:, :1]
    belongs = (candidates == numbers[:, 1:2]) | (candidates == anchors)
    same_anchor = F.pad(anchors == anchors.T, (0, len(candidates) - rows))
    is_target = torch.eye(rows, len(candidates), dtype=torch.bool, device=logits.device)
    logits = logits.masked_fill((belongs | same_anchor) & ~is_target, float("-inf"))
    return F.cross_entropy(logits, torch.arange(rows, device=logits.device))


def ranking_loss(similarities: Tensor, scores: Tensor) -> Tensor:
    """Return how far pairs are from the order of their scores: ``log(1 + sum exp((s_j - s_i) / t))``.

    The sum is over all pairs ``i`` with a higher score than ``j`` (CoSENT, Su, 2022). It depends on the scores' order
    alone, as Spearman's correlation does, so that scores may have any unit; a regression on cosines would need their
    range, and spend itself on their distribution.

    Args:
        similarities: Cosines, of shape ``(rows,)``.
        scores: Scores, of shape ``(rows,)``.
    """
    import torch

    excess = (similarities[None, :] - similarities[:, None]) / TEMPERATURE
    is_wrong_way = scores[:, None] > scores[None, :]
    terms = excess.masked_fill(~is_wrong_way, float("-inf")).flatten()
    return torch.cat([terms.new_zeros(1), terms]).logsumexp(dim=0)
