"""One tag per word: cross-entropy at the first token of each word; entity F1 and token accuracy."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import model_validator

from orchestrator.common.metric import Metric
from orchestrator.common.section import refusal
from orchestrator.tasks._base import Batches, TaskType
from orchestrator.tasks.class_report import ClassReport, RowErrors, entity_report
from orchestrator.tasks.columns import Column
from orchestrator.tasks.file_headers import Key
from orchestrator.tasks.inputs import ColumnKind, InputColumn, to_arrow
from orchestrator.tasks.metric_field import MetricNames, MetricsOf
from orchestrator.tasks.section import TaskSection
from orchestrator.tasks.tagged_rows import (
    encode_tags,
    from_spans,
    from_tokens,
    majority_share,
    texts_and_words,
    without_tags,
)
from orchestrator.tasks.tagging import NO_TAG, OUTSIDE, TagScheme, first_tokens, row_counts
from orchestrator.tasks.tokens import (
    IGNORED_LABEL,
    device_of,
    in_table_order,
    lengths,
    pad,
    ragged,
    sequences,
    token_column,
)
from orchestrator.tasks.trivial import TrivialPredictor, drawn, most_frequent, repeated, with_column

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase


TOKENIZED_ROWS = 4096


def entity_f1(predictions: pa.Table, draws: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return 2 tp / (true + predicted) over the entities of all rows of a sample: seqeval's micro F1."""
    correct, true, predicted = (
        predictions[name].to_numpy()[draws].sum(axis=1)
        for name in ("correct_entities", "entities", "predicted_entities")
    )
    scores: NDArray[np.float64] = 2 * correct / np.maximum(true + predicted, 1)
    return scores


def token_accuracy(predictions: pa.Table, draws: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the share of words with the right tag."""
    correct, words = (predictions[name].to_numpy()[draws].sum(axis=1) for name in ("correct_words", "words"))
    scores: NDArray[np.float64] = correct / np.maximum(words, 1)
    return scores


METRICS = (
    Metric(name="entity_f1", label="entity F1", statistic=entity_f1),
    Metric(name="token_accuracy", label="token accuracy", statistic=token_accuracy),
)


class TokenClassificationTask(TaskSection):
    """One tag per word: entities, parts of speech."""

    type: Literal["token-classification"]
    """One tag per word."""
    tokens: str | None = None
    """Column of the words, a list per row; with ``tags``."""
    tags: str | None = None
    """Column of the tags, one per word: ``B-X``, ``I-X`` and ``O``, or plain names."""
    text: str | None = None
    """Column of the texts; with ``spans``, in place of ``tokens`` and ``tags``."""
    spans: str | None = None
    """Column of the entities in a text: a list of ``{start, end, label}``, in characters from 0 on."""
    metric: Annotated[MetricNames, MetricsOf(METRICS)] = METRICS[0].name
    """What the search maximizes: a name, or a list whose first is optimized and whose others are recorded beside it."""

    @model_validator(mode="after")
    def _has_one_layout(self) -> Self:
        named = {key for key in ("tokens", "tags", "text", "spans") if getattr(self, key) is not None}
        if named not in ({"tokens", "tags"}, {"text", "spans"}):
            given = f"has {' and '.join(sorted(named))}" if named else "names no columns"
            raise refusal([((), f"{given}; write tokens and tags, or text and spans")])
        return self

    @classmethod
    def in_memory(cls) -> Self:
        """Return the section of a task without files: words and their tags."""
        values = {"type": cls.type_name(), "data": "memory.jsonl", "tokens": "tokens", "tags": "tags"}
        return cls.model_validate(values)

    @property
    def input_columns(self) -> dict[str, str]:
        """The column of the words, or of the texts."""
        return {"tokens": self.tokens} if self.tokens is not None else {"text": self.text or ""}

    def content_columns(self) -> dict[Key, list[str]]:
        """Return the columns of words and tags, or of texts and spans."""
        named = {key: getattr(self, key) for key in ("tokens", "tags", "text", "spans")}
        return {(key,): [column] for key, column in named.items() if column is not None}

    def contents(self, columns: Mapping[str, Column]) -> dict[str, pa.Array]:
        """Return ``tokens`` or ``text``, and the words' ``tags`` as texts."""
        if self.tokens is not None and self.tags is not None:
            return from_tokens(columns[self.tokens], columns[self.tags])
        assert self.text is not None
        assert self.spans is not None
        return from_spans(columns[self.text], columns[self.spans])

    def encode(
        self, tables: dict[str, pa.Table], files: Mapping[str, str], key: str
    ) -> tuple[dict[str, pa.Table], tuple[str, ...]]:
        """Replace tags by indices into the tags of all splits."""
        return encode_tags(tables, files["train"], f"{key}.{'tags' if self.tags else 'spans'}")


class TokenClassification(TaskType):
    """Any ``AutoModelForTokenClassification``.

    Split tables hold ``tokens`` (lists of words) or ``text``, and ``tags`` (list of int32, indices into the task's
    labels). Tokenized tables hold ``positions`` beside the tags: each word's first token, or -1 where there is none,
    because the row was cut or the tokenizer drops the word. Such a word counts as wrong, and its entity as missed.
    Those of texts hold ``starts`` and ``ends`` too: each word in characters.

    Predictions hold ``predicted`` and ``probabilities`` (lists, per word), and counts per row: ``words``,
    ``correct_words``, ``words_without_token``, ``entities``, ``predicted_entities``, ``correct_entities``.
    """

    section = TokenClassificationTask
    metrics = METRICS
    auto_class = "AutoModelForTokenClassification"
    peft_task_type = "TOKEN_CLS"
    text_columns = ("tokens", "text")
    input_columns = MappingProxyType(
        {
            "tokens": InputColumn(kind="strings", example=["Ada", "flew", "to", "Oslo", "."]),
            "text": InputColumn(example="Ada flew to Oslo."),
        }
    )
    example_labels = 3

    def baseline(self, splits: Mapping[str, pa.Table]) -> float:
        """Return the share of the test rows' words that have the most frequent training tag."""
        return majority_share(splits)

    def tokenizer_refusal(self, tokenizer: PreTrainedTokenizerBase) -> str:
        """Return that a slow tokenizer does not tell which characters a token covers."""
        reason = "its tokenizer is a slow one, which does not tell the characters of a token"
        return "" if tokenizer.is_fast else f"{reason}; token-classification needs a fast tokenizer (tokenizer.json)"

    def tokenize(self, rows: pa.Table, tokenizer: PreTrainedTokenizerBase, max_length: int) -> pa.Table:
        """Return columns ``row``, ``input_ids``, ``positions``, ``tags``, and for texts the words' places.

        ``cut`` counts the tokens that were left out.
        """
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

    def collate(
        self, rows: pa.Table, indices: NDArray[np.int64], pad_id: int, pad_left: bool = False
    ) -> dict[str, Tensor]:
        """Return ``input_ids``, ``attention_mask``, ``labels`` of shape ``(rows, tokens)``; -100 but at first tokens.

        Padding goes after the tokens, whatever ``pad_left`` is: no token is read for a row as a whole.
        """
        import torch

        batch = pad(sequences(rows, indices), pad_id, left=False)
        labels = np.full(batch["input_ids"].shape, IGNORED_LABEL, np.int64)
        pairs = zip(sequences(rows, indices, "positions"), sequences(rows, indices, "tags"), strict=True)
        for row, (positions, tags) in enumerate(pairs):
            # Backwards, so that a token that is the first of several words has the tag of the first word.
            has_token = np.flatnonzero(positions >= 0)[::-1]
            labels[row, positions[has_token]] = tags[has_token]
        return {**batch, "labels": torch.from_numpy(labels)}

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """Return the mean cross-entropy over the first tokens of words."""
        from torch.nn import functional as F

        logits, labels = self.forward(model, batch).float(), batch["labels"].to(device_of(model))
        total = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED_LABEL, reduction="sum")
        return total / (labels != IGNORED_LABEL).sum().clamp_min(1)

    def predictions(
        self, model: nn.Module, rows: pa.Table, batches: Batches, pad_id: int, pad_left: bool = False
    ) -> pa.Table:
        """Return the most probable tag of each word with its probability, and the counts that scores are made of."""
        predicted, probabilities, indices = self._predict(model, rows, batches, pad_id)
        table = rows.select(["row", "tags"]).take(pa.array(indices))
        counts = self._counts(table, np.concatenate(predicted).astype(np.int64))
        columns = {"predicted": token_column(predicted), "probabilities": token_column(probabilities, np.float64)}
        for name, column in {**columns, **counts}.items():
            table = table.append_column(name, column)
        return table

    def _counts(self, table: pa.Table, predicted: NDArray[np.int64]) -> dict[str, pa.Array]:
        """Return the counts per row that scores are made of, from a tag for each word of all rows."""
        scheme, (tags, offsets) = TagScheme(self.labels), _flat_tags(table)
        true, found = scheme.entities(tags, offsets), scheme.entities(predicted, offsets)
        counts = {
            "words": np.diff(offsets),
            "correct_words": row_counts(np.flatnonzero(predicted == tags), offsets),
            "words_without_token": row_counts(np.flatnonzero(predicted == NO_TAG), offsets),
            "entities": row_counts(true.first, offsets),
            "predicted_entities": row_counts(found.first, offsets),
            "correct_entities": row_counts(found.matching(true), offsets),
        }
        return {name: pa.array(values) for name, values in counts.items()}

    def trivial_predictors(self, splits: Mapping[str, pa.Table], predictions: pa.Table) -> tuple[TrivialPredictor, ...]:
        """Return the most frequent training tag for every word, and for entities tags in their proportions."""
        codes, words = _flat_tags(splits["train"])[0], len(_flat_tags(predictions)[0])
        common = most_frequent(codes)

        def answered(tags: NDArray[np.int64]) -> pa.Table:
            table = predictions
            for name, column in self._counts(predictions, tags).items():
                table = with_column(table, name, column)
            return table

        always = repeated(f"always answering {self.labels[common]}", answered, common, words)
        if self.optimized.name != METRICS[0].name:
            return (always,)
        return always, drawn("drawing tags in the training rows' proportions", answered, codes, words)

    def constant_answer(self, predictions: pa.Table) -> str:
        """Return the tag that all words get."""
        tags = predictions["predicted"].combine_chunks().flatten().to_numpy()
        tags = tags[tags != NO_TAG]
        return self.labels[tags[0]] if len(tags) > 1 and (tags == tags[0]).all() else ""

    def compared(self, predictions: pa.Table) -> tuple[list[Any], list[Any]]:
        """Return the predicted and the true tag of each row's words, by name; ``O`` for a word without a prediction."""
        names = dict(enumerate(self.labels))
        predicted, true = (
            [[names.get(tag, OUTSIDE) for tag in row] for row in predictions[name].to_pylist()]
            for name in ("predicted", "tags")
        )
        return predicted, true

    def class_report(self, predictions: pa.Table) -> ClassReport:
        """Return the counts of each kind of entity."""
        scheme, (tags, offsets) = TagScheme(self.labels), _flat_tags(predictions)
        predicted = predictions["predicted"].combine_chunks().flatten().to_numpy().astype(np.int64)
        return entity_report(scheme.entities(tags, offsets), scheme.entities(predicted, offsets), scheme.kinds)

    def row_errors(self, predictions: pa.Table) -> RowErrors:
        """Return how many words of each row have a wrong tag, or none."""
        counts = [predictions[name].to_numpy().astype(np.float64) for name in ("words", "correct_words")]
        return RowErrors("words with a wrong tag", counts[0] - counts[1])

    def right_predictions(self, rows: pa.Table) -> pa.Table:
        """Return the tags as predictions."""
        return pa.table({"row": rows["row"], "tags": rows["tags"], "predicted": rows["tags"]})

    def unanswered(self, inputs: pa.Table) -> pa.Table:
        """Return words or texts whose tags are unknown."""
        numbers = pa.array(range(inputs.num_rows), pa.int64())
        return without_tags(pa.table({"row": numbers, **{name: inputs[name] for name in inputs.column_names}}))

    def answer_columns(self, labels: Sequence[str]) -> dict[str, ColumnKind]:
        """Return ``tags`` and ``spans``."""
        return {"tags": "strings", "spans": "json"}

    def answer(
        self,
        model: nn.Module,
        rows: pa.Table,
        batches: Batches,
        pad_id: int,
        pad_left: bool,
        labels: Sequence[str],
    ) -> pa.Table:
        """Return the tags of listed words, null for a word that was cut; and the entities.

        An entity's ``start`` and ``end`` count the characters of a text, or the words of a list. Its ``score`` is the
        mean probability of its words' tags.
        """
        predicted, probabilities, _ = self._predict(model, rows, batches, pad_id)
        is_listed = "starts" not in rows.column_names
        tags = [[labels[tag] if tag >= 0 else None for tag in row] if is_listed else None for row in predicted]
        spans = [
            self._spans(row_tags, row_probabilities, rows, row)
            for row, (row_tags, row_probabilities) in enumerate(zip(predicted, probabilities, strict=True))
        ]
        return pa.table({"tags": pa.array(tags, pa.list_(pa.string())), "spans": to_arrow(spans, "json")})

    def answer_object(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Return ``tags`` for listed words only, and ``spans``."""
        return {name: value for name, value in answer.items() if value is not None}

    def _spans(
        self, tags: NDArray[np.int64], probabilities: NDArray[np.float64], rows: pa.Table, row: int
    ) -> list[dict[str, Any]]:
        scheme = TagScheme(self.labels)
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

    def reproducible(self, predictions: pa.Table) -> NDArray[np.float64]:
        """Return the probability of each word's tag, shape ``(words, 1)``."""
        values: NDArray[np.float64] = predictions["probabilities"].combine_chunks().flatten().to_numpy()
        return values[:, None]

    def answered(self, predictions: pa.Table) -> list[Any]:
        """Return the tags of the words of each row."""
        answers: list[Any] = predictions["predicted"].to_pylist()
        return answers

    def example_output(self, labels: Sequence[str]) -> str:
        """Return the tags of the tokens, among which the first of each word counts."""
        return f"[{json.dumps(list(labels), ensure_ascii=False)}[tag] for tag in logits[0].argmax(dim=-1)]"

    def purpose(self, labels: Sequence[str]) -> str:
        """Return that it tags words, and with what."""
        kinds = TagScheme(tuple(labels)).kinds
        return f"Finds entities of {len(kinds)} kind{'s' * (len(kinds) != 1)} ({', '.join(kinds)}) in a text"

    def dummy_labels(self, input_ids: Tensor, attention_mask: Tensor, labels: int) -> Tensor:
        """Return tags in turn for every token that is not padding, of shape ``(rows, tokens)``."""
        import torch

        tags = torch.arange(input_ids.shape[1], device=input_ids.device) % max(labels, 1)
        return tags.expand(input_ids.shape).masked_fill(attention_mask != 1, IGNORED_LABEL)

    def target_tokens(self, rows: pa.Table) -> NDArray[np.int64]:
        """Return how many words of each row have a token."""
        return np.array(
            [(positions >= 0).sum() for positions in sequences(rows, np.arange(rows.num_rows), "positions")]
        )

    def trained_tokens(self, rows: pa.Table) -> list[NDArray[np.bool_]]:
        """Return the first tokens of words."""
        every = np.arange(rows.num_rows)
        pairs = zip(lengths(rows), sequences(rows, every, "positions"), strict=True)
        return [np.isin(np.arange(length), positions) for length, positions in pairs]

    def _predict(
        self, model: nn.Module, rows: pa.Table, batches: Batches, pad_id: int
    ) -> tuple[list[NDArray[np.int64]], list[NDArray[np.float64]], NDArray[np.int64]]:
        """Return the tag of each row's words and its probability (softmax in float64), and the rows' indices."""
        import torch

        scheme = TagScheme(self.labels)
        predicted, probabilities = [], []
        with torch.no_grad():
            for indices in batches:
                logits = self.forward(model, self.collate(rows, indices, pad_id))
                values = logits.double().softmax(dim=-1).cpu().numpy()
                for row, positions in enumerate(sequences(rows, indices, "positions")):
                    scores = values[row, positions]  # of any token where a word has none, replaced below
                    tags, has_token = scores.argmax(axis=1), positions >= 0
                    is_same_token = np.concatenate([[False], positions[1:] == positions[:-1]])[: len(positions)]
                    tags = np.where(is_same_token, scheme.continuing(tags), tags)
                    predicted.append(np.where(has_token, tags, NO_TAG))
                    probabilities.append(np.where(has_token, scores.max(axis=1), 0.0))
        order, indices = in_table_order(batches)
        return [predicted[index] for index in order], [probabilities[index] for index in order], indices


def _flat_tags(table: pa.Table) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the tags of all rows' words in one array, and where each row begins, with the end of the last."""
    tags, offsets = ragged(table, "tags")
    return tags[offsets[0] : offsets[-1]].astype(np.int64), (offsets - offsets[0]).astype(np.int64)
