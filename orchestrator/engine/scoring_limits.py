"""Batches that are scored at once, halved where a device has too little memory for them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from orchestrator.engine.out_of_memory import FreeMemory, drop_frames, is_out_of_memory, release_memory
from orchestrator.engine.ranks import Ranks
from orchestrator.tasks import Evaluation
from orchestrator.tasks.batches import EVALUATION_TOKENS

log = logging.getLogger(__name__)


class ScoringLimits:
    """The most tokens of a batch that is scored, padding included, by method and split.

    A batch that does not fit costs its time, so that the method's next trials begin with batches that fit.
    """

    def __init__(self) -> None:
        self._tokens: dict[tuple[str, str], int] = {}

    def tokens(self, method: str, split: str) -> int:
        """Return the limit of a method's trials on a split."""
        return self._tokens.get((method, split), EVALUATION_TOKENS)

    def halve(self, method: str, split: str, tokens: int) -> None:
        """Set the limit to half of the tokens of a batch that did not fit."""
        self._tokens[method, split] = max(1, tokens // 2)


def score_in_fitting_batches(
    score: Callable[[int], Evaluation],
    largest_batch: Callable[[int], tuple[int, int]],
    limits: ScoringLimits,
    use: tuple[str, str],
    ranks: Ranks,
    free_memory: FreeMemory,
    device: torch.device,
) -> Evaluation:
    """Score a split; if memory is short, again with released memory, and then in ever smaller batches.

    Args:
        score: Scores the split in batches of so many tokens at most.
        largest_batch: Returns the most rows and the most tokens of those batches.
        limits: The limits that are known; all workers of a lane know the same ones.
        use: Method and split.
        ranks: This worker's rank; if one worker's memory is short, all score again.
        free_memory: Lets go of tensors that can be had again.
        device: Device that computes.

    Raises:
        Exception: If scoring raised anything but an error for too little memory, or single rows do not fit.
    """
    released = False
    while True:
        tokens = limits.tokens(*use)
        try:
            return score(tokens)
        except Exception as raised:
            error = raised
        if not any(ranks.all_gather_object(is_out_of_memory(error))):
            raise error
        rows, largest = largest_batch(tokens)
        if released and rows == 1:
            raise drop_frames(error)
        if released:
            limits.halve(*use, largest)
        again = f"in batches of at most {limits.tokens(*use):,} tokens" if released else "with released memory"
        log.warning("%s ran out of memory when it was scored on %s; tried again %s", *use, again)
        drop_frames(error)
        del error
        release_memory(free_memory, device)
        released = True


def largest_batch(batches: Sequence[NDArray[np.int64]], lengths: NDArray[np.int64]) -> tuple[int, int]:
    """Return the most rows, and the most tokens with padding, of any batch.

    Args:
        batches: Row indices of each batch.
        lengths: Tokens of each row, shape ``(rows,)``.
    """
    return max(map(len, batches)), max(len(batch) * int(lengths[batch].max()) for batch in batches)
