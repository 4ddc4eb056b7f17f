"""One tag per word: cross-entropy at the first token of each word; entity F1 and token accuracy."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.tasks._base import TaskType
from orchestrator.tasks.batches import Batches
from orchestrator.tasks.class_report import ClassReport, RowErrors, entity_report
from orchestrator.tasks.inputs import ColumnKind, InputColumn, to_arrow
from orchestrator.tasks.tagging import NO_TAG, OUTSIDE, TagScheme
from orchestrator.tasks.token_classification.rows import majority_share, tokenized, without_tags
from orchestrator.tasks.token_classification.section import METRICS, TokenClassificationTask
from orchestrator.tasks.token_classification.words import counts, entity_spans, flat_tags, word_tags
from orchestrator.tasks.tokens import IGNORED_LABEL, device_of, in_table_order, lengths, pad, sequences, token_column
from orchestrator.tasks.trivial import TrivialPredictor, drawn, most_frequent, repeated, with_column

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase


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
        return tokenized(rows, tokenizer, max_length)

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
        numbers = counts(TagScheme(self.labels), table, np.concatenate(predicted).astype(np.int64))
        columns = {"predicted": token_column(predicted), "probabilities": token_column(probabilities, np.float64)}
        for name, column in {**columns, **numbers}.items():
            table = table.append_column(name, column)
        return table

    def trivial_predictors(self, splits: Mapping[str, pa.Table], predictions: pa.Table) -> tuple[TrivialPredictor, ...]:
        """Return the most frequent training tag for every word, and for entities tags in their proportions."""
        scheme = TagScheme(self.labels)
        codes, words = flat_tags(splits["train"])[0], len(flat_tags(predictions)[0])
        common = most_frequent(codes)

        def answered(tags: NDArray[np.int64]) -> pa.Table:
            table = predictions
            for name, column in counts(scheme, predictions, tags).items():
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
        scheme, (tags, offsets) = TagScheme(self.labels), flat_tags(predictions)
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
            entity_spans(TagScheme(self.labels), row_tags, row_probabilities, rows, row)
            for row, (row_tags, row_probabilities) in enumerate(zip(predicted, probabilities, strict=True))
        ]
        return pa.table({"tags": pa.array(tags, pa.list_(pa.string())), "spans": to_arrow(spans, "json")})

    def answer_object(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Return ``tags`` for listed words only, and ``spans``."""
        return {name: value for name, value in answer.items() if value is not None}

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
                    tags, tag_probabilities = word_tags(values[row], positions, scheme)
                    predicted.append(tags)
                    probabilities.append(tag_probabilities)
        order, indices = in_table_order(batches)
        return [predicted[index] for index in order], [probabilities[index] for index in order], indices
