"""The tags of words: from what a model gives for each token, and what scores and entities are made of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.tasks.tagging import NO_TAG, TagScheme, row_counts
from orchestrator.tasks.tokens import ragged, sequences


def flat_tags(table: pa.Table) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the tags of all rows' words in one array, and where each row begins, with the end of the last."""
    tags, offsets = ragged(table, "tags")
    return tags[offsets[0] : offsets[-1]].astype(np.int64), (offsets - offsets[0]).astype(np.int64)


def word_tags(
    values: NDArray[np.float64], positions: NDArray[np.int64], scheme: TagScheme
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the most probable tag of each word of a row, and its probability; ``NO_TAG`` and 0 without a token.

    Args:
        values: Probabilities of shape ``(tokens, tags)``.
        positions: First token of each word; -1 where there is none.
        scheme: The tags.
    """
    scores = values[positions]  # of any token where a word has none, replaced below
    tags, has_token = scores.argmax(axis=1), positions >= 0
    is_same_token = np.concatenate([[False], positions[1:] == positions[:-1]])[: len(positions)]
    tags = np.where(is_same_token, scheme.continuing(tags), tags)
    return np.where(has_token, tags, NO_TAG), np.where(has_token, scores.max(axis=1), 0.0)


def counts(scheme: TagScheme, table: pa.Table, predicted: NDArray[np.int64]) -> dict[str, pa.Array]:
    """Return the counts per row that scores are made of, from a tag for each word of all rows."""
    tags, offsets = flat_tags(table)
    true, found = scheme.entities(tags, offsets), scheme.entities(predicted, offsets)
    numbers = {
        "words": np.diff(offsets),
        "correct_words": row_counts(np.flatnonzero(predicted == tags), offsets),
        "words_without_token": row_counts(np.flatnonzero(predicted == NO_TAG), offsets),
        "entities": row_counts(true.first, offsets),
        "predicted_entities": row_counts(found.first, offsets),
        "correct_entities": row_counts(found.matching(true), offsets),
    }
    return {name: pa.array(values) for name, values in numbers.items()}


def entity_spans(
    scheme: TagScheme, tags: NDArray[np.int64], probabilities: NDArray[np.float64], rows: pa.Table, row: int
) -> list[dict[str, Any]]:
    """Return the entities of one row as a client gets them.

    Args:
        scheme: The tags.
        tags: Tag of each word.
        probabilities: Probability of each word's tag.
        rows: Tokenized table; with the words' places in a text, if they are from one.
        row: The row's index in it.
    """
    found = scheme.entities(tags, np.array([0, len(tags)]))
    starts, ends = np.arange(len(tags)), np.arange(len(tags)) + 1
    if "starts" in rows.column_names:
        (starts,), (ends,) = (sequences(rows, np.array([row]), name) for name in ("starts", "ends"))
    return [
        {
            "start": int(starts[first]),
            "end": int(ends[last]),
            "label": scheme.kinds[kind],
            "score": float(probabilities[first : last + 1].mean()),
        }
        for first, last, kind in zip(found.first, found.last, found.kind, strict=True)
    ]
