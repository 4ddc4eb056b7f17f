"""How likely every choice is after its prompt, with as few sequences as possible.

A sequence is a prompt with all tokens of a choice but the last. Choices whose tokens a longer choice's sequence begins
with need none of their own: labels of one token each take one sequence per row, however many they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.tasks.token_losses import token_log_probabilities
from orchestrator.tasks.tokens import integers, pad, sequences, token_column

if TYPE_CHECKING:
    from torch import nn

Tokens = NDArray[np.int32]
Batches = Sequence[NDArray[np.int64]]


@dataclass(frozen=True)
class _Sequence:
    """A sequence, and the choices that are read from it.

    Args:
        tokens: Prompt and stem.
        prompt_length: Tokens of the prompt.
        choices: Row (in the batch), index and tokens of each choice.
    """

    tokens: Tokens
    prompt_length: int
    choices: list[tuple[int, int, Tokens]]


def log_likelihoods(
    model: nn.Module, rows: pa.Table, indices: NDArray[np.int64], pad_id: int
) -> list[NDArray[np.float64]]:
    """Return the log-likelihood of each row's choices, in nats: the sum over a choice's tokens.

    Args:
        model: Language model, which is called without gradients.
        rows: Tokenized table.
        indices: Rows of a batch; no more sequences than these pass through the model at once.
        pad_id: Id of the padding token.
    """
    import torch

    counts = [len(row) for row in sequences(rows, indices, "choice_lengths")]
    found = [np.zeros(count) for count in counts]
    every = [sequence for row, index in enumerate(indices) for sequence in _sequences(rows, int(index), row)]
    every.sort(key=lambda sequence: len(sequence.tokens))
    with torch.no_grad():
        for first in range(0, len(every), len(indices)):
            part = every[first : first + len(indices)]
            places = [
                (number, sequence.prompt_length - 1 + step, int(token), row, choice)
                for number, sequence in enumerate(part)
                for row, choice, tokens in sequence.choices
                for step, token in enumerate(tokens)
            ]
            where = np.array(places, np.int64).reshape(-1, 5)
            batch = pad([sequence.tokens for sequence in part], pad_id, left=False)
            values = token_log_probabilities(model, batch, *torch.from_numpy(where[:, :3]).T)
            for (row, choice), value in zip(where[:, 3:], values.double().cpu().numpy(), strict=True):
                found[row][choice] += value
    return found


def calibrated(
    found: Sequence[NDArray[np.float64]], model: nn.Module, rows: pa.Table, batches: Batches, pad_id: int
) -> list[NDArray[np.float64]]:
    """Return log-likelihoods minus those of the same choices after the model's prompt without content, if it has one.

    Args:
        found: Log-likelihoods of each row's choices, in the order of the batches.
        model: Language model; one that calibrates has token ids as ``blank_prompt``.
        rows: Tokenized table.
        batches: Rows of each batch.
        pad_id: Id of the padding token.
    """
    blank = getattr(model, "blank_prompt", None)
    if blank is None:
        return list(found)
    ids = blank.cpu().numpy().astype(np.int32)
    sizes = {"prompt_length": pa.array([len(ids)] * rows.num_rows, pa.int32())}
    columns = {**{name: rows[name] for name in ("choice_ids", "choice_lengths")}, **sizes}
    table = pa.table({"input_ids": token_column([ids] * rows.num_rows), **columns})
    seen: dict[bytes, NDArray[np.float64]] = {}  # where all rows have the same choices, they are computed once
    result = []
    for scores, index in zip(found, np.concatenate([*batches]), strict=True):
        key = b"|".join(
            sequences(rows, np.array([index]), name)[0].tobytes() for name in columns if name != "prompt_length"
        )
        if key not in seen:
            seen[key] = log_likelihoods(model, table, np.array([index]), pad_id)[0]
        result.append(scores - seen[key])
    return result


def _sequences(rows: pa.Table, index: int, row: int) -> Iterator[_Sequence]:
    """Yield the fewest sequences from which all choices of a row can be read."""
    (ids,), (choice_ids,), (sizes,) = (
        sequences(rows, np.array([index]), name) for name in ("input_ids", "choice_ids", "choice_lengths")
    )
    prompt_length = int(integers(rows, "prompt_length")[index])
    prompt = ids[:prompt_length]
    choices = np.split(choice_ids, np.cumsum(sizes)[:-1]) if len(sizes) else []
    read: dict[tuple[int, ...], list[tuple[int, int, Tokens]]] = {}
    for number in sorted(range(len(choices)), key=lambda number: -len(choices[number])):
        stem = tuple(choices[number][:-1].tolist())
        longer = next((other for other in read if other[: len(stem)] == stem), stem)
        read.setdefault(longer, []).append((row, number, choices[number]))
    for stem, members in read.items():
        yield _Sequence(np.concatenate([prompt, np.array(stem, np.int32)]), prompt_length, members)
