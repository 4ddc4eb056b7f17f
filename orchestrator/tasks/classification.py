"""One label per text: cross-entropy on the head's logits; macro F1 and accuracy."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.common.metric import Metric
from orchestrator.tasks._base import Batches, Evaluation, TaskType
from orchestrator.tasks.classes import encode, majority_share
from orchestrator.tasks.columns import Column
from orchestrator.tasks.file_headers import Key
from orchestrator.tasks.inputs import ColumnKind, InputColumn
from orchestrator.tasks.metric_field import MetricNames, MetricsOf
from orchestrator.tasks.section import TaskSection
from orchestrator.tasks.tokens import (
    device_of,
    in_table_order,
    integers,
    model_inputs,
    pad,
    sequences,
    token_column,
)

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase


def macro_f1(predictions: pa.Table, draws: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the mean over classes of 2 tp / (2 tp + fp + fn), 0 where a class is neither true nor predicted."""
    labels, predicted = integers(predictions, "label").astype(np.int64), predicted_labels(predictions)
    classes = predictions.schema.field("probabilities").type.list_size
    cells = (labels * classes + predicted)[draws] + np.arange(len(draws))[:, None] * classes**2
    confusion = np.bincount(cells.ravel(), minlength=len(draws) * classes**2).reshape(-1, classes, classes)
    hits = np.diagonal(confusion, axis1=1, axis2=2)
    occurrences = confusion.sum(axis=1) + confusion.sum(axis=2)
    scores: NDArray[np.float64] = (2 * hits / np.maximum(occurrences, 1)).mean(axis=1)
    return scores


def accuracy(predictions: pa.Table, draws: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the share of rows whose most probable label is the true one."""
    is_right = integers(predictions, "label") == predicted_labels(predictions)
    scores: NDArray[np.float64] = is_right[draws].mean(axis=1)
    return scores


METRICS = (
    Metric(name="macro_f1", label="macro-F1", statistic=macro_f1),
    Metric(name="accuracy", label="accuracy", statistic=accuracy),
)


class ClassificationTask(TaskSection):
    """One label per text."""

    type: Literal["classification"]
    """One label per text."""
    text: str
    """Column of the texts."""
    label: str
    """Column of the labels: texts, whole numbers, or true and false."""
    metric: Annotated[MetricNames, MetricsOf(METRICS)] = METRICS[0].name
    """What the search maximizes: a name, or a list whose first is optimized and whose others are recorded beside it."""

    @property
    def input_columns(self) -> dict[str, str]:
        """The column of the texts."""
        return {"text": self.text}

    def content_columns(self) -> dict[Key, list[str]]:
        """Return the columns of texts and labels."""
        return {("text",): [self.text], ("label",): [self.label]}

    def contents(self, columns: Mapping[str, Column]) -> dict[str, pa.Array]:
        """Return ``text`` and ``label``, both as texts."""
        return {"text": columns[self.text].texts, "label": columns[self.label].texts}

    def encode(
        self, tables: dict[str, pa.Table], files: Mapping[str, str], key: str
    ) -> tuple[dict[str, pa.Table], tuple[str, ...]]:
        """Replace labels by indices into the training rows' labels."""
        return encode(tables, files, self.label, key, self.drop_invalid)


class Classification(TaskType):
    """Any ``AutoModelForSequenceClassification``, encoder or decoder.

    Split tables hold ``text`` and ``label`` (int32, an index into the task's labels). Predictions hold ``label``, the
    true one, and ``probabilities`` (a fixed-size list of float64).
    """

    section = ClassificationTask
    metrics = METRICS
    auto_class = "AutoModelForSequenceClassification"
    peft_task_type = "SEQ_CLS"
    text_columns = ("text",)
    input_columns = MappingProxyType({"text": InputColumn(example="Thank you for the quick help!")})
    pads_left = True
    example_labels = 2

    def baseline(self, splits: Mapping[str, pa.Table]) -> float:
        """Return the accuracy of always answering the most frequent training label."""
        return majority_share(splits)

    def tokenize(self, rows: pa.Table, tokenizer: PreTrainedTokenizerBase, max_length: int) -> pa.Table:
        """Return columns ``row``, ``input_ids``, ``label``; a text that is too long loses its end."""
        ids: list[list[int]] = []
        for batch in rows.select(["text"]).to_batches(max_chunksize=4096):
            texts = batch["text"].to_pylist()
            ids += tokenizer(texts, truncation=True, max_length=max_length, return_attention_mask=False)["input_ids"]
        return pa.table({"row": rows["row"], "input_ids": token_column(ids), "label": rows["label"]})

    def collate(
        self, rows: pa.Table, indices: NDArray[np.int64], pad_id: int, pad_left: bool = False
    ) -> dict[str, Tensor]:
        """Return ``input_ids``, ``attention_mask`` of shape ``(rows, tokens)`` and ``labels`` of shape ``(rows,)``.

        A decoder classifies by its last token: padded on the right, soft prompts would read the padding.
        """
        import torch

        labels = integers(rows, "label")[indices].astype(np.int64)
        return {**pad(sequences(rows, indices), pad_id, pad_left), "labels": torch.from_numpy(labels)}

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """Return the mean cross-entropy over the rows."""
        from torch.nn import functional as F

        logits = model(**model_inputs(model, batch)).logits
        return F.cross_entropy(logits.float(), batch["labels"].to(device_of(model)))

    def predictions(
        self, model: nn.Module, rows: pa.Table, batches: Batches, pad_id: int, pad_left: bool = False
    ) -> pa.Table:
        """Return the labels and the probabilities (softmax in float64) of the batches' rows."""
        import torch

        probabilities_of_batches = []
        with torch.no_grad():
            for indices in batches:
                batch = self.collate(rows, indices, pad_id, pad_left)
                logits = model(**model_inputs(model, batch)).logits
                probabilities_of_batches.append(logits.double().softmax(dim=-1).cpu().numpy())
        order, indices = in_table_order(batches)
        table = rows.select(["row", "label"]).take(indices)
        return _with_probabilities(table, np.concatenate(probabilities_of_batches)[order])

    def unanswered(self, inputs: pa.Table) -> pa.Table:
        """Return texts with label 0, which no answer depends on."""
        labels = pa.array(np.zeros(inputs.num_rows, np.int32))
        return super().unanswered(inputs).append_column("label", labels)

    def answer_columns(self, labels: Sequence[str]) -> dict[str, ColumnKind]:
        """Return ``label``, and ``probability_LABEL`` for each label."""
        probabilities: dict[str, ColumnKind] = {f"probability_{label}": "double" for label in labels}
        return {"label": "string", **probabilities}

    def answer(
        self,
        model: nn.Module,
        rows: pa.Table,
        batches: Batches,
        pad_id: int,
        pad_left: bool,
        labels: Sequence[str],
    ) -> pa.Table:
        """Return the most probable label of each text, and the probability of each label."""
        predictions = self.predictions(model, rows, batches, pad_id, pad_left)
        answers = [labels[index] for index in predicted_labels(predictions)]
        columns = [pa.array(answers, pa.string()), *map(pa.array, probabilities(predictions).T)]
        return pa.table(columns, names=[*self.answer_columns(labels)])

    def answer_object(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Return ``label``, and ``probabilities`` by label."""
        label, *values = answer.values()
        names = [name.removeprefix("probability_") for name in answer][1:]
        return {"label": label, "probabilities": dict(zip(names, values, strict=True))}

    def reproducible(self, predictions: pa.Table) -> NDArray[np.float64]:
        """Return the probabilities."""
        return probabilities(predictions)

    def predict_again(
        self, recorded: pa.Table, answer: Callable[[pa.Table], pa.Table], evaluate: Callable[[pa.Table], Evaluation]
    ) -> pa.Table:
        """Return predictions with the probabilities that a client gets."""
        _, *columns = answer(recorded).columns
        values = np.stack([column.to_numpy() for column in columns], axis=1)
        return _with_probabilities(recorded.select(["row", "label"]), values)

    def example_output(self, labels: Sequence[str]) -> str:
        """Return the name of the most probable label."""
        return f"{json.dumps(list(labels), ensure_ascii=False)}[logits.argmax()]"

    def purpose(self, labels: Sequence[str]) -> str:
        """Return that it labels texts, and with what."""
        return f"Assigns one of {len(labels)} labels ({', '.join(labels)}) to a text"

    def dummy_labels(self, input_ids: Tensor, attention_mask: Tensor, labels: int) -> Tensor:
        """Return the labels in turn, of shape ``(rows,)``."""
        import torch

        return torch.arange(len(input_ids), device=input_ids.device) % max(labels, 1)


def predicted_labels(predictions: pa.Table) -> NDArray[np.int64]:
    """Return the most probable label of each row, as an index into the task's labels."""
    labels: NDArray[np.int64] = probabilities(predictions).argmax(axis=1)
    return labels


def probabilities(predictions: pa.Table) -> NDArray[np.float64]:
    """Return the probabilities of shape ``(rows, classes)``."""
    classes = predictions.schema.field("probabilities").type.list_size
    flat: NDArray[np.float64] = predictions["probabilities"].combine_chunks().flatten().to_numpy()
    return flat.reshape(-1, classes)


def _with_probabilities(rows: pa.Table, values: NDArray[np.float64]) -> pa.Table:
    column = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
    return rows.append_column("probabilities", column)
