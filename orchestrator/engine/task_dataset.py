"""A task's tokenized rows, as batches for training and evaluation."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch import Tensor, nn

from methods.base.spec import TaskText
from orchestrator.backbone.shared import SharedBackbone
from orchestrator.common.errors import InputError
from orchestrator.common.storage import Storage
from orchestrator.config import Training
from orchestrator.engine.evaluation import evaluate
from orchestrator.engine.ranks import ALONE, Ranks
from orchestrator.engine.scoring_limits import largest_batch
from orchestrator.tasks import TASK_TYPES, Evaluation, TaskSection, TaskType, task_type
from orchestrator.tasks.batches import EVALUATION_TOKENS, evaluation_batches, subset, training_batches
from orchestrator.tasks.columns import Column
from orchestrator.tasks.tokens import example_rows, lengths, pad, ragged, sequences

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TaskDataset:
    """Tokenized splits of a task, and the batches that trials read from them.

    Lanes read the tables from the memory of Ray's object store without copying; :meth:`from_examples` makes a dataset
    of texts in memory.

    Args:
        config: task as in the configuration.
        tables: tokenized rows by split: ``train``, ``validation``, ``test``.
        pad: id of the padding token.
        decoder: whether to pad on the left, since a decoder is scored at its last token.
        training: limits of a trial.
        seed: seed of the data order and of the choice of validation rows, the same for all trials.
        tokenizer: the tokenizer, or the sweep's folder with one in it, for tasks that generate text and methods that
            read it; without one, neither works.
        names: names of the classes, in the order of their ids.
        ranks: this worker's rank in its lane; its workers share the rows of a batch and of an evaluation.
        constants: numbers of the task that its type needs.
    """

    def __init__(
        self,
        config: TaskSection,
        tables: dict[str, pa.Table],
        pad: int = 0,
        decoder: bool = False,
        training: Training | None = None,
        seed: int = 0,
        tokenizer: Storage | PreTrainedTokenizerBase | None = None,
        names: tuple[str, ...] = (),
        ranks: Ranks = ALONE,
        constants: Mapping[str, float] | None = None,
    ) -> None:
        self.pad, self.decoder, self.training, self._seed = pad, decoder, training or Training(), seed
        self.names, self.ranks = names, ranks
        self._config, self._tables, self._tokenizer_source = config, tables, tokenizer
        self._constants = constants or {}

    @classmethod
    def from_examples(
        cls,
        backbone: SharedBackbone,
        tokenizer: PreTrainedTokenizerBase,
        splits: Mapping[str, Sequence[tuple[str, str]]],
        training: Training | None = None,
    ) -> Self:
        """Tokenize examples in memory.

        Args:
            backbone: backbone whose task type the examples are of.
            tokenizer: tokenizer of the backbone.
            splits: examples of ``train``, ``validation`` and, if needed, ``test``: pairs of text and label for
                classification (the classes are the training labels in alphabetical order), of prompt and completion
                for a language model.
            training: limits of a trial.

        Raises:
            ValueError: if a label does not occur in ``train``, or the backbone's head has another number of classes.
        """
        training, kind = training or Training(), TASK_TYPES[backbone.context.task]
        config = kind.section.in_memory()
        splits_as_read = {split: _table_of(config, examples) for split, examples in splits.items()}
        try:
            encoded, names = config.encode(splits_as_read, {split: split for split in splits}, "examples")
        except InputError as error:
            raise ValueError(str(error)) from error
        if kind.head_size(len(names)) not in (0, backbone.model.config.num_labels):
            classes = backbone.model.config.num_labels
            raise ValueError(f"train has {len(names)} labels; the backbone was loaded with a head for {classes}")
        tables = {split: kind.tokenize(rows, tokenizer, training.max_length) for split, rows in encoded.items()}
        pad = int(tokenizer.pad_token_id or 0)
        constants = config.constants(encoded["train"])
        return cls(
            config, tables, pad, backbone.decoder, training, tokenizer=tokenizer, names=names, constants=constants
        )

    @cached_property
    def type(self) -> TaskType:
        """The task's type, with a tokenizer if it generates text."""
        type_ = task_type(self._config, labels=self.names, constants=self._constants)
        return replace(type_, tokenizer=self._tokenizer) if type_.for_test().generates else type_

    @cached_property
    def text(self) -> TaskText | None:
        """What methods may read of the task's words; ``None`` without a tokenizer."""
        if self._tokenizer is None:
            return None
        length = self.training.max_length
        return TaskText(
            tokenizer=self._tokenizer,
            labels=self.type.class_names,
            max_length=length,
            examples=self.examples,
            blank=self.type.blank_prompt(self._config, self._tokenizer, length),
        )

    @property
    def metric(self) -> str:
        """The name of the metric that the task is optimized by."""
        return self._config.metrics[0]

    @property
    def max_length(self) -> int:
        """The most tokens in a row."""
        return self.training.max_length

    def examples(self, count: int) -> list[tuple[list[int], int]]:
        """Return token ids and class of up to ``count`` training rows, drawn with the sweep's seed."""
        table = self._tables["train"]
        values, starts = ragged(table)
        return [
            (values[starts[row] : starts[row + 1]].tolist(), label)
            for row, label in example_rows(table, count, self._seed)
        ]

    def batch(self, indices: NDArray[np.int64]) -> dict[str, Tensor]:
        """Return a training batch of the rows at ``indices``, padded to its longest row."""
        return self.type.collate(self._tables["train"], indices, self.pad, self.decoder)

    def training_batches(
        self, batch_size: int, start: int, stop: int, order: int | None = None
    ) -> Iterator[NDArray[np.int64]]:
        """Yield the row indices of optimizer steps ``start`` to ``stop - 1``.

        Args:
            batch_size: rows per step.
            start: number of steps already done.
            stop: step before which to stop.
            order: seed of the data order; the order that all trials share if left out.
        """
        table, seed = self._tables["train"], self._seed if order is None else order
        return training_batches(lengths(table), table["row"].to_numpy(), seed, batch_size, start, stop)

    def evaluate(self, model: nn.Module, split: str, tokens: int = EVALUATION_TOKENS) -> Evaluation:
        """Score a model on the test split, or on the validation rows that all rungs use.

        Args:
            model: model with the method attached.
            split: ``validation`` or ``test``.
            tokens: tokens of a batch with its padding, at most.
        """
        batches, table = self._evaluation_batches(split, tokens), self._evaluation_table(split)
        kind = self.type_for(split)
        kind = replace(kind, generation_tokens=min(kind.generation_tokens, tokens))
        return evaluate(self.ranks, kind, model, table, batches, self.pad, self.decoder)

    def type_for(self, split: str) -> TaskType:
        """Return the task's type as it scores a split: the test split by all chosen metrics."""
        return self.type.for_test() if split == "test" else self.type

    def largest_evaluation_batch(self, split: str, tokens: int) -> tuple[int, int]:
        """Return the most rows, and the most tokens with padding, of a batch of :meth:`evaluate`."""
        return largest_batch(self._evaluation_batches(split, tokens), lengths(self._evaluation_table(split)))

    def _evaluation_batches(self, split: str, tokens: int) -> list[NDArray[np.int64]]:
        return evaluation_batches(lengths(self._evaluation_table(split)), self.training.evaluation_batch, tokens)

    def evaluation_tokens(self, split: str) -> int:
        """Return the tokens of a typical batch of :meth:`evaluate`, without padding."""
        table = self._evaluation_table(split)
        rows: int = min(self.training.evaluation_batch, table.num_rows)
        return int(np.median(lengths(table))) * rows

    def median_length_batch(self, count: int) -> dict[str, Tensor]:
        """Return a batch like validation rows of about the median length, repeated where there are fewer.

        Rows whose batch would have more tokens than one that is scored are cut.
        """
        table = self._validation_table
        order = np.argsort(lengths(table), kind="stable")
        first = max(0, (len(order) - count) // 2)
        ids = sequences(table, np.resize(order[first : first + count], count))
        longest = max(1, EVALUATION_TOKENS // count)
        tokens = pad([row[:longest] for row in ids], self.pad, left=self.decoder and self.type.pads_left)
        return self.type.dummy_batch(
            tokens["input_ids"], tokens["attention_mask"], self.type.head_size(len(self.names))
        )

    def _evaluation_table(self, split: str) -> pa.Table:
        return self._validation_table if split == "validation" else self._tables[split]

    @cached_property
    def _validation_table(self) -> pa.Table:
        table = self._tables["validation"]
        labels = table["label"].to_numpy() if "label" in table.column_names else None
        return table.take(pa.array(subset(table["row"].to_numpy(), self.training.validation_rows, self._seed, labels)))

    @cached_property
    def _tokenizer(self) -> Any:
        """The tokenizer, loaded from the sweep's folder if it is there; ``None`` if there is none."""
        if not isinstance(self._tokenizer_source, Storage):
            return self._tokenizer_source
        if not self._tokenizer_source.exists("tokenizer"):
            return None
        from transformers import AutoTokenizer

        with tempfile.TemporaryDirectory() as folder:
            self._tokenizer_source.download("tokenizer", Path(folder) / "tokenizer")
            return AutoTokenizer.from_pretrained(Path(folder) / "tokenizer")


def _table_of(config: TaskSection, examples: Sequence[tuple[str, str]]) -> pa.Table:
    """Return a split's table of pairs of input and answer, in the order in which the task type names its columns."""
    names = [name for columns in config.content_columns().values() for name in columns]
    values = zip(*examples, strict=True)
    columns = {name: Column.of(name, list(entries)) for name, entries in zip(names, values, strict=True)}
    return pa.table({"row": np.arange(1, len(examples) + 1), **config.contents(columns)})
