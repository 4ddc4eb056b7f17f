"""From columns of words with tags, or texts with spans, to texts whose words have tags, and to their tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from orchestrator.common.errors import InputError, Problem
from orchestrator.tasks.columns import Column, ordered
from orchestrator.tasks.tagging import first_tokens, span_tags, word_spans
from orchestrator.tasks.tokens import token_column

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOKENIZED_ROWS = 4096

Span = tuple[int, int, str]
Word = tuple[int, int]


def from_tokens(tokens: Column, tags: Column) -> dict[str, pa.Array]:
    """Return ``tokens`` and ``tags``; refuse rows whose numbers differ."""
    words, names = tokens.text_lists, tags.text_lists
    is_refused = tokens.refused | tags.refused
    for index, (row_words, row_tags) in enumerate(zip(words.to_pylist(), names.to_pylist(), strict=True)):
        if is_refused[index]:
            continue
        if not any(word.strip() for word in row_words):
            tokens.refuse(index, "has no words")
        elif len(row_words) != len(row_tags):
            tags.refuse(index, f"has {len(row_tags):,} tags for {len(row_words):,} words")
        elif not all(row_tags):
            tags.refuse(index, "has an empty tag; write O for a word outside entities")
    return {"tokens": words, "tags": names}


def from_spans(texts: Column, spans: Column) -> dict[str, pa.Array]:
    """Return ``text``, and ``tags`` of its words; refuse spans that are not of whole words."""
    tags: list[list[str]] = []
    values = texts.texts.to_pylist()
    words = [word_spans(text or "") for text in values]
    for index, row_spans in enumerate(spans.map(_parsed_spans)):
        row_tags, problem = span_tags(words[index], row_spans or (), values[index] or "")
        if problem:
            spans.refuse(index, problem)
        tags.append(row_tags)
    texts.refuse(np.array([not row_words for row_words in words], bool) & ~texts.refused, "has no words")
    return {"text": texts.texts, "tags": pa.array(tags, pa.list_(pa.string()))}


def texts_and_words(rows: pa.Table) -> tuple[list[str], list[list[Word]]]:
    """Return each row's text, and the start and end of each of its words in it; listed words are joined by spaces."""
    if "text" in rows.column_names:
        texts = rows["text"].to_pylist()
        return texts, [word_spans(text) for text in texts]
    listed = rows["tokens"].to_pylist()
    words = []
    for row in listed:
        ends = np.cumsum([len(word) + 1 for word in row], dtype=np.int64) - 1
        words.append([(int(end) - len(word), int(end)) for word, end in zip(row, ends, strict=True)])
    return [" ".join(row) for row in listed], words


def tokenized(rows: pa.Table, tokenizer: PreTrainedTokenizerBase, max_length: int) -> pa.Table:
    """Return the tokens of words or texts; see :meth:`.TokenClassification.tokenize`."""
    texts, words = texts_and_words(rows)
    ids: list[list[int]] = []
    cut: list[int] = []
    positions: list[NDArray[np.int64]] = []
    settings = {"truncation": True, "max_length": max_length, "return_attention_mask": False}
    for first in range(0, len(texts), TOKENIZED_ROWS):
        batch = slice(first, first + TOKENIZED_ROWS)
        tokens = tokenizer(texts[batch], return_offsets_mapping=True, **settings)
        ids += tokens["input_ids"]
        cut += [sum(part.special_tokens_mask.count(0) for part in row.overflowing) for row in tokens.encodings]
        pairs = zip(tokens["offset_mapping"], words[batch], strict=True)
        positions += [first_tokens(offsets, row_words) for offsets, row_words in pairs]
    columns = {"row": rows["row"], "input_ids": token_column(ids), "positions": token_column(positions)}
    columns["cut"] = pa.array(cut, pa.int32())
    if "text" in rows.column_names:
        for part, name in enumerate(("starts", "ends")):
            columns[name] = token_column([word[part] for word in row_words] for row_words in words)
    return pa.table({**columns, "tags": rows["tags"]})


def without_tags(rows: pa.Table) -> pa.Table:
    """Return rows with tag 0 for every word, which no answer depends on."""
    tags = token_column(np.zeros(len(words), np.int32) for words in texts_and_words(rows)[1])
    return rows.append_column("tags", tags)


def encode_tags(tables: Mapping[str, pa.Table], file: str, key: str) -> tuple[dict[str, pa.Table], tuple[str, ...]]:
    """Replace tags by indices into the tags of all splits, and return these.

    A tag that the training rows lack is never predicted, and counts as missed.

    Raises:
        InputError: If all words have one tag.
    """
    lists = {name: table["tags"].combine_chunks() for name, table in tables.items()}
    labels = ordered(pa.chunked_array([column.flatten() for column in lists.values()]))
    if len(labels) < 2:
        raise InputError(file, [Problem(key, f"all words have the tag {labels[0]!r}; two tags are needed")])
    names, encoded = pa.array(labels, pa.string()), {}
    for name, table in tables.items():
        codes = pc.index_in(lists[name].flatten(), names)
        sizes = pc.list_value_length(lists[name]).to_numpy()
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
        column = pa.ListArray.from_arrays(pa.array(offsets), codes)
        encoded[name] = table.set_column(table.column_names.index("tags"), "tags", column)
    return encoded, labels


def majority_share(splits: Mapping[str, pa.Table]) -> float:
    """Return the share of the test rows' words that have the most frequent training tag."""
    train, test = (splits[name]["tags"].combine_chunks().flatten().to_numpy() for name in ("train", "test"))
    return float((test == np.bincount(train).argmax()).mean())


def _parsed_spans(value: Any) -> list[Span]:
    """Return start, end and label of each span.

    Raises:
        ValueError: If the value is something else.
    """
    spans = []
    for span in value if isinstance(value, list) else [value]:
        parts = [span.get(key) for key in ("start", "end", "label")] if isinstance(span, dict) else span
        if not (isinstance(parts, list) and [type(part) for part in parts] == [int, int, str] and parts[2].strip()):
            raise ValueError(f"holds {span!r}; a span is {{start: 0, end: 5, label: person}}")
        spans.append((parts[0], parts[1], parts[2]))
    return spans
