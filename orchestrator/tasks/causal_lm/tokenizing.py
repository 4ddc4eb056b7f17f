"""From prompts with completions, or rendered conversations, to tokens and which of them are trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.tasks.rendering import tokenize_rendered
from orchestrator.tasks.token_spans import last_stretch
from orchestrator.tasks.tokens import integers, sequences, token_column
from orchestrator.tasks.written_text import references_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def tokenized_texts(rows: pa.Table, tokenizer: PreTrainedTokenizerBase, max_length: int) -> pa.Table:
    """Return the tokens of prompts with completions, or of plain texts; see :meth:`.CausalLM.tokenize`."""
    opening, ids, prompt_lengths, sizes, cut = _opening(tokenizer), [], [], [], []
    for batch in rows.select(["prompt", "completion"]).to_batches(max_chunksize=4096):
        prompts, completions = (_plain_ids(tokenizer, batch[name]) for name in ("prompt", "completion"))
        texts = batch["completion"].to_pylist()
        for prompt, completion, text in zip(prompts, completions, texts, strict=True):
            end = [*completion, tokenizer.eos_token_id][: max_length - len(opening) - 1]
            start = [*opening, *prompt[-(max_length - len(opening) - len(end)) :]]
            ids.append([*start, *end])
            prompt_lengths.append(len(start))
            is_whole = len(end) >= len(completion)
            read = text if is_whole else cast("str", tokenizer.decode(end))
            sizes.append(len(read.encode()))
            cut.append(len(opening) + len(prompt) + len(completion) + 1 - len(ids[-1]))
    trained = [np.arange(len(row)) >= length for row, length in zip(ids, prompt_lengths, strict=True)]
    if "train_on" in rows.column_names:
        trained = [np.ones(len(row), bool) for row in ids]
    return _tokenized(rows, ids, trained, prompt_lengths, sizes, cut)


def tokenized_conversations(
    rows: pa.Table, tokenizer: PreTrainedTokenizerBase, max_length: int, *, are_generated: bool
) -> pa.Table:
    """Return the tokens of rendered conversations; see :meth:`.CausalLM.tokenize`.

    Args:
        rows: Split table with ``text`` and ``spans``.
        tokenizer: The tokenizer.
        max_length: Tokens to which a row is cut.
        are_generated: Whether answers will be generated, for which ``prompt_ids`` are needed.
    """
    ids, trained, cut = tokenize_rendered(rows, tokenizer, max_length)
    prompt_lengths = [last_stretch(mask) for mask in trained]
    answers = [row[mask].tolist() for row, mask in zip(ids, trained, strict=True)]
    # no rows at all would be decoded as one without tokens
    texts = tokenizer.batch_decode(answers, skip_special_tokens=True) if answers else []
    table = _tokenized(rows, ids, trained, prompt_lengths, [len(text.encode()) for text in texts], cut)
    is_asked = not any(mask.any() for mask in trained)
    if not are_generated and not is_asked:
        return table
    # What a client's conversation is rendered to, which need not be how the row's text begins.
    prompts = _plain_ids(tokenizer, rows["prompt"].combine_chunks())
    return table.append_column("prompt_ids", token_column([prompt[-max_length + 1 :] for prompt in prompts]))


def prompt_ids(rows: pa.Table, indices: NDArray[np.int64]) -> list[NDArray[np.int32]]:
    """Return the tokens after which a model is to write, of each row."""
    if "prompt_ids" in rows.column_names:
        return sequences(rows, indices, "prompt_ids")
    prompt_lengths = integers(rows, "prompt_length")[indices]
    return [sequence[:length] for sequence, length in zip(sequences(rows, indices), prompt_lengths, strict=True)]


def reference_ids(rows: pa.Table, indices: NDArray[np.int64]) -> list[list[int]]:
    """Return the trained tokens of rows' last trained part: what a generated text is compared with."""
    prompt_lengths = integers(rows, "prompt_length")[indices]
    parts = zip(sequences(rows, indices), sequences(rows, indices, "trained"), prompt_lengths, strict=True)
    return [sequence[length:][trained[length:] == 1].tolist() for sequence, trained, length in parts]


def _tokenized(
    rows: pa.Table,
    ids: Sequence[Sequence[int] | NDArray[np.int32]],
    trained: Sequence[NDArray[np.bool_]],
    prompt_lengths: list[int],
    sizes: list[int],
    cut: list[int],
) -> pa.Table:
    numbers = {"prompt_length": prompt_lengths, "bytes": sizes, "cut": cut}
    columns = {name: pa.array(values, pa.int32()) for name, values in numbers.items()}
    tokens = {"input_ids": token_column(ids), "trained": token_column(trained, np.uint8)}
    return pa.table({"row": rows["row"], **tokens, **columns, **references_of(rows)})


def _plain_ids(tokenizer: PreTrainedTokenizerBase, texts: pa.Array) -> list[list[int]]:
    if not len(texts):  # tokenizers refuse an empty list
        return []
    settings = {"add_special_tokens": False, "return_attention_mask": False, "verbose": False}
    ids: list[list[int]] = tokenizer(texts.to_pylist(), **settings)["input_ids"]
    return ids


def _opening(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the beginning-of-sequence token, if the tokenizer puts it before a text itself."""
    special: list[int] = tokenizer("")["input_ids"]
    return [token for token in special if token == tokenizer.bos_token_id][:1]
