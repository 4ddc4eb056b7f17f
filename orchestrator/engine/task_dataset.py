"""A task's tokenized rows, as one lane reads them from the object store's memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch import Tensor, nn

from methods.base.spec import TaskText
from orchestrator.common.storage import Storage
from orchestrator.config import Task, Training
from orchestrator.engine.evaluation import evaluate
from orchestrator.engine.ranks import ALONE, Ranks
from orchestrator.tasks import Evaluation, TaskType, task_type
from orchestrator.tasks.batches import evaluation_batches, subset, training_batches
from orchestrator.tasks.tokens import lengths, ragged, shown


class TaskDataset:
    """Batches for training and evaluation.

    Args:
        config: the task.
        tables: tokenized rows by split.
        pad: id of the padding token.
        decoder: pads on the left, since the last token is the one that is scored.
        training: limits.
        seed: of the data order and of the validation rows, the same for all trials.
        tokenizer: the sweep's folder; its tokenizer is there, for tasks that generate text and methods that read it.
        names: of the classes, in the order of their ids.
        ranks: this worker's place in its lane, whose workers share the rows of a batch and of an evaluation.
    """

    def __init__(
        self,
        config: Task,
        tables: dict[str, pa.Table],
        pad: int,
        decoder: bool,
        training: Training,
        seed: int,
        tokenizer: Storage,
        names: tuple[str, ...] = (),
        ranks: Ranks = ALONE,
    ) -> None:
        self.pad, self.decoder, self._training, self._seed = pad, decoder, training, seed
        self.names, self.ranks = names, ranks
        self._config, self._tables, self._tokenizer = config, tables, tokenizer

    @cached_property
    def type(self) -> TaskType:
        """The task's type, with a tokenizer where it generates."""
        generates = self._config.metric == "exact_match"
        return task_type(self._config, self._loaded_tokenizer if generates else None)

    @cached_property
    def text(self) -> TaskText | None:
        """The task's words, where the sweep's folder holds a tokenizer."""
        if not self._tokenizer.exists("tokenizer"):
            return None
        tokenizer, length = self._loaded_tokenizer, self._training.max_length
        return TaskText(tokenizer=tokenizer, labels=self.names, max_length=length, examples=self.examples)

    def examples(self, count: int) -> list[tuple[list[int], int]]:
        """So many training rows, drawn with the sweep's seed, fewer if there are not as many: token ids, and class."""
        table = self._tables["train"]
        values, starts = ragged(table)
        chosen = shown(table, count, self._seed)
        return [(values[starts[row] : starts[row + 1]].tolist(), label) for row, label in chosen]

    def batch(self, indices: NDArray[np.int64]) -> dict[str, Tensor]:
        """A training batch, padded to its own longest row."""
        return self.type.collate(self._tables["train"], indices, self.pad, self.decoder)

    @property
    def metric(self) -> str:
        """What the task is scored by."""
        return self._config.metric

    @property
    def max_length(self) -> int:
        """Tokens of a row, at most."""
        return self._training.max_length

    def training_batches(
        self, batch_size: int, start: int, stop: int, order: int | None = None
    ) -> Iterator[NDArray[np.int64]]:
        """Indices of the rows of steps ``start`` to ``stop - 1``, in the order of all trials or of a seed's own."""
        rows, seed = self._tables["train"], self._seed if order is None else order
        return training_batches(lengths(rows), rows["row"].to_numpy(), seed, batch_size, start, stop)

    def evaluate(self, model: nn.Module, split: str) -> Evaluation:
        """Score a model: on the whole test split, or on the validation rows that rungs use."""
        table = self._validation if split == "validation" else self._tables[split]
        batches = evaluation_batches(lengths(table), self._training.evaluation_batch)
        return evaluate(self.ranks, self.type, model, table, batches, self.pad, self.decoder)

    def evaluation_tokens(self, split: str) -> int:
        """Tokens of the middle one of the batches that :meth:`evaluate` makes of a split, padding aside."""
        table = self._validation if split == "validation" else self._tables[split]
        rows: int = min(self._training.evaluation_batch, table.num_rows)
        return int(np.median(lengths(table))) * rows

    def typical(self, count: int) -> dict[str, Tensor]:
        """A batch of validation rows of middling length; they come again where there are fewer."""
        table = self._validation
        order = np.argsort(lengths(table), kind="stable")
        first = max(0, (len(order) - count) // 2)
        return self.type.collate(table, np.resize(order[first : first + count], count), self.pad, self.decoder)

    @cached_property
    def _validation(self) -> pa.Table:
        table = self._tables["validation"]
        labels = table["label"].to_numpy() if "label" in table.column_names else None
        return table.take(pa.array(subset(table["row"].to_numpy(), self._training.validation_rows, self._seed, labels)))

    @cached_property
    def _loaded_tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        with tempfile.TemporaryDirectory() as folder:
            self._tokenizer.download("tokenizer", Path(folder) / "tokenizer")
            return AutoTokenizer.from_pretrained(Path(folder) / "tokenizer")
