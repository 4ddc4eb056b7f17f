"""The loss of a choice: cross-entropy over the choices that are left, token by token.

At each token of the right choice where choices part, the tokens with which they go on compete, and no others. For
choices of one token each it is the cross-entropy over the choices. It needs one sequence per row, and learns nothing
about the rest of the vocabulary, which no answer depends on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.tasks.output_head import states_and_head
from orchestrator.tasks.tokens import integers, model_inputs, sequences

if TYPE_CHECKING:
    from torch import Tensor, nn

NO_OPTION = -1
"""Fills a batch's options up to one number."""


def competing_tokens(rows: pa.Table, indices: NDArray[np.int64], answer: str) -> dict[str, Tensor]:
    """Return where the right choices of a batch part from others, and with which tokens the choices go on.

    Args:
        rows: Tokenized table.
        indices: Indices of the batch's rows.
        answer: Column with the index of the right choice.

    Returns:
        ``places``, of shape ``(rows, forks)``: the token after which choices part. ``options``, of shape
        ``(rows, forks, tokens)``: the tokens that compete there, the right one first, filled with -1. A row with fewer
        forks has some with a single option, which cost nothing.
    """
    import torch

    prompt_lengths, right = (integers(rows, name)[indices] for name in ("prompt_length", answer))
    forks = []
    for row, (ids, sizes) in enumerate(
        zip(sequences(rows, indices, "choice_ids"), sequences(rows, indices, "choice_lengths"), strict=True)
    ):
        choices = [tuple(choice.tolist()) for choice in np.split(ids, np.cumsum(sizes)[:-1])]
        forks.append(_forks(choices, int(right[row]), int(prompt_lengths[row]) - 1))
    depth = max(map(len, forks))
    width = max((len(options) for row_forks in forks for _, options in row_forks), default=1)
    places = np.zeros((len(forks), depth), np.int64)
    options = np.full((len(forks), depth, width), NO_OPTION, np.int64)
    options[:, :, 0] = 0
    for row, row_forks in enumerate(forks):
        for number, (place, tokens) in enumerate(row_forks):
            places[row, number] = place
            options[row, number, : len(tokens)] = tokens
    return {"places": torch.from_numpy(places), "options": torch.from_numpy(options)}


def choice_loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Return the mean over rows of the cross-entropy at all forks of the right choice.

    Args:
        model: Language model.
        batch: Its inputs, and what :func:`competing_tokens` returns.
    """
    states, head = states_and_head(model, model_inputs(model, batch))
    states = states[:, -batch["input_ids"].shape[1] :]  # without the positions of soft prompts
    places, options = (batch[name].to(states.device) for name in ("places", "options"))
    chosen = states.gather(1, places[:, :, None].expand(-1, -1, states.shape[-1]))
    logits = head.logits(chosen.flatten(0, 1)).float().unflatten(0, places.shape)
    competing = logits.gather(2, options.clamp_min(0)).masked_fill(options == NO_OPTION, float("-inf"))
    loss: Tensor = -competing.log_softmax(dim=-1)[:, :, 0].sum(dim=1).mean()
    return loss


def _forks(choices: list[tuple[int, ...]], right: int, place: int) -> list[tuple[int, list[int]]]:
    """Return where choices part along the right one, and the tokens that compete there, the right one first."""
    path, forks = choices[right], []
    for step, token in enumerate(path):
        others = {choice[step] for choice in choices if choice[:step] == path[:step] and len(choice) > step} - {token}
        if others:
            forks.append((place + step, [token, *sorted(others)]))
    return forks
