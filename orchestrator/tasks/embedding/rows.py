"""From rows of texts to their tokens, and back to the texts of a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.tasks.embedding.section import TEXTS
from orchestrator.tasks.tokens import Tokens, sequences, token_column

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def tokenized(rows: pa.Table, tokenizer: PreTrainedTokenizerBase, max_length: int) -> pa.Table:
    """Return the tokens of all texts of each row; see :meth:`.Embedding.tokenize`."""
    names = [name for name in TEXTS if name in rows.column_names]
    ids, lengths = [], []
    settings: dict[str, Any] = {"truncation": True, "max_length": max_length, "return_attention_mask": False}
    for batch in rows.select(names).to_batches(max_chunksize=4096):
        texts = [tokenizer(batch[name].to_pylist(), **settings)["input_ids"] for name in names]
        for parts in zip(*texts, strict=True):
            ids.append([token for part in parts for token in part])
            lengths.append([len(part) for part in parts])
    table = pa.table({"row": rows["row"], "input_ids": token_column(ids), "lengths": token_column(lengths)})
    return table.append_column("score", rows["score"]) if "score" in rows.column_names else table


def texts_of(rows: pa.Table, indices: NDArray[np.int64]) -> list[Tokens]:
    """Return the token ids of the rows' anchors, their positives, and the negatives if there are any."""
    lengths = sequences(rows, indices, "lengths")
    parts = [
        np.split(ids, np.cumsum(counts)[:-1]) for ids, counts in zip(sequences(rows, indices), lengths, strict=True)
    ]
    return [list(texts) for texts in zip(*parts, strict=True)]
