"""One label per text or pair of texts, or several: cross-entropy; macro F1 and other metrics of labels."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import model_validator

from orchestrator.common.metric import Metric
from orchestrator.common.section import refusal
from orchestrator.tasks.batches import Batches
from orchestrator.tasks.class_metrics import (
    ONE_LABEL,
    SEVERAL_LABELS,
    THRESHOLD,
    most_frequent_labels,
    multi_hot,
    predicted_labels,
    probabilities,
)
from orchestrator.tasks.class_report import (
    ClassReport,
    RowErrors,
    label_errors,
    one_label_report,
    several_labels_report,
)
from orchestrator.tasks.classes import encode, encode_lists, majority_share, with_probabilities_by_name
from orchestrator.tasks.columns import Column
from orchestrator.tasks.contract.scoring import Evaluation
from orchestrator.tasks.file_headers import Key
from orchestrator.tasks.inputs import ColumnKind
from orchestrator.tasks.metric_field import MetricNames, MetricsOf
from orchestrator.tasks.text_pairs import TextSection, TextType
from orchestrator.tasks.tokens import device_of, in_table_order, integers
from orchestrator.tasks.trivial import AT_RANDOM, TrivialPredictor, drawn, most_frequent, repeated

if TYPE_CHECKING:
    from torch import Tensor, nn

METRICS = (*ONE_LABEL, SEVERAL_LABELS[0])


class ClassificationTask(TextSection):
    """One label per text or pair of texts, or several."""

    type: Literal["classification"]
    """One label per text or pair of texts, or several."""
    label: str | None = None
    """Column of the labels, one per row: texts, whole numbers, or true and false."""
    labels: str | None = None
    """Column of lists of labels, instead of ``label``, for rows that may have several or none."""
    metric: Annotated[MetricNames, MetricsOf(METRICS)] = METRICS[0].name
    """What the search maximizes: a name, or a list whose first is optimized and whose others are recorded beside it.
    With ``labels``: ``micro_f1`` (the default there) or ``macro_f1``; otherwise any but ``micro_f1``."""

    @classmethod
    def in_memory(cls) -> Self:
        """Return the section of a task without files, with one label per text."""
        return cls.model_validate({"type": cls.type_name(), "data": "memory.jsonl", "text": "text", "label": "label"})

    @model_validator(mode="before")
    @classmethod
    def _keep_default_of_labels(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("labels") is not None:
            return {"metric": SEVERAL_LABELS[0].name, **values}
        return values

    @model_validator(mode="after")
    def _has_one_kind_of_labels(self) -> ClassificationTask:
        if (self.label is None) == (self.labels is None):
            message = "label is missing; name the column of the labels, or with labels a column of lists of labels"
            raise refusal([((), message if self.label is None else "has label and labels; name one of them")])
        known = {metric.name for metric in METRICS}
        possible = [metric.name for metric in (SEVERAL_LABELS if self.labels else ONE_LABEL)]
        if wrong := [name for name in self.metrics if name in known and name not in possible]:
            kind = "several labels per row" if self.labels else "one label per row"
            message = f"{wrong[0]!r} is not possible with {kind}; choose from {', '.join(possible)}"
            raise refusal([(("metric",), message)])
        return self

    def content_columns(self) -> dict[Key, list[str]]:
        """Return the columns of texts and labels."""
        keys = {"label": self.label, "labels": self.labels}
        return {**super().content_columns(), **{(key,): [column] for key, column in keys.items() if column}}

    def contents(self, columns: Mapping[str, Column]) -> dict[str, pa.Array]:
        """Return the texts and ``label``, a text, or ``labels``, lists of texts."""
        if self.labels:
            return {**super().contents(columns), "labels": columns[self.labels].text_lists}
        return {**super().contents(columns), "label": columns[str(self.label)].texts}

    def encode(
        self, tables: dict[str, pa.Table], files: Mapping[str, str], key: str
    ) -> tuple[dict[str, pa.Table], tuple[str, ...]]:
        """Replace labels by indices into the training rows' labels."""
        if self.labels:
            return encode_lists(tables, files, self.labels, key, self.drop_invalid)
        return encode(tables, files, str(self.label), key, self.drop_invalid)

    def constants(self, train: pa.Table) -> dict[str, float]:
        """Return the threshold of several labels."""
        return {"threshold": THRESHOLD} if self.labels else {}


class Classification(TextType):
    """Any ``AutoModelForSequenceClassification``, encoder or decoder.

    Split tables hold the texts and ``label`` (int32, an index into the task's labels); predictions hold ``label``, the
    true one, and ``probabilities`` (a fixed-size list of float64). Where rows have several labels, both have ``labels``
    (lists of int32) instead, and the type's constants a ``threshold``.
    """

    section: ClassVar[type[Any]] = ClassificationTask
    metrics = METRICS
    answer_sources = ("label", "labels")
    example_labels = 2

    @property
    def has_several(self) -> bool:
        """Whether a row may have several labels, or none."""
        return "threshold" in self.constants

    @property
    def class_names(self) -> tuple[str, ...]:
        """The labels, unless a row may have several."""
        return () if self.has_several else self.labels

    @property
    def computed(self) -> tuple[Metric, ...]:
        """The metrics that ``evaluate`` computes: those of one label, or of several."""
        others = ONE_LABEL if self.has_several else SEVERAL_LABELS
        possible = SEVERAL_LABELS if self.has_several else ONE_LABEL
        return tuple(metric for metric in super().computed if metric in possible or metric not in others)

    def baseline(self, splits: Mapping[str, pa.Table]) -> float | None:
        """Return the accuracy of always answering the most frequent training label; ``None`` for several labels."""
        return majority_share(splits) if "label" in splits["train"].column_names else None

    def trivial_predictors(self, splits: Mapping[str, pa.Table], predictions: pa.Table) -> tuple[TrivialPredictor, ...]:
        """Return the most frequent training label for every row, and for macro-F1 labels in their training proportions.

        Where rows may have several labels: all labels for every row, and as many of the most frequent as have the best
        micro-F1 on the training rows.
        """
        width, rows = predictions.schema.field("probabilities").type.list_size, predictions.num_rows
        names = self.labels or tuple(map(str, range(width)))
        if "label" in splits["train"].column_names:
            codes = integers(splits["train"], "label").astype(np.int64)

            def answered(labels: NDArray[np.int64]) -> pa.Table:
                return self._with_probabilities(predictions, np.eye(width)[labels])

            common = most_frequent(codes)
            always = repeated(f"always answering {names[common]}", answered, common, rows)
            # By any other metric, no answers have a higher expected score than the most frequent one.
            return (always, drawn(AT_RANDOM, answered, codes, rows)) if self.optimized.name == "macro_f1" else (always,)
        chosen = most_frequent_labels(multi_hot(splits["train"]["labels"], width))
        sets = {f"always answering {', '.join(names[label] for label in chosen)}": chosen}
        sets |= {f"always answering all {width} labels": np.arange(width)}
        given = {name: np.isin(np.arange(width), labels).astype(np.float64) for name, labels in sets.items()}
        return tuple(
            TrivialPredictor(name, (self._with_probabilities(predictions, np.tile(row, (rows, 1))),))
            for name, row in given.items()
        )

    def constant_answer(self, predictions: pa.Table) -> str:
        """Return the label, or the labels, that all rows get."""
        values = probabilities(predictions)
        given = values >= THRESHOLD
        if "labels" not in predictions.column_names:
            given = np.eye(values.shape[1], dtype=bool)[predicted_labels(predictions)]
        names = self.labels or tuple(map(str, range(values.shape[1])))
        is_constant = len(given) > 1 and (given == given[0]).all()
        return (", ".join(names[index] for index in np.flatnonzero(given[0])) or "no label") if is_constant else ""

    def collate(
        self, rows: pa.Table, indices: NDArray[np.int64], pad_id: int, pad_left: bool = False
    ) -> dict[str, Tensor]:
        """Return the padded rows, and ``labels``.

        Labels have the shape ``(rows,)``, or ``(rows, labels)`` in float32 where rows may have several.
        """
        import torch

        if self.has_several:
            labels = multi_hot(rows["labels"].take(pa.array(indices)), len(self.labels)).astype(np.float32)
        else:
            labels = integers(rows, "label")[indices].astype(np.int64)
        return {**self.padded(rows, indices, pad_id, pad_left), "labels": torch.from_numpy(labels)}

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """Return the mean cross-entropy over the rows, or the binary one over all rows and labels."""
        from torch.nn import functional as F

        logits, labels = self.forward(model, batch).float(), batch["labels"].to(device_of(model))
        if labels.dim() == 2:
            return F.binary_cross_entropy_with_logits(logits, labels)
        return F.cross_entropy(logits, labels)

    def predictions(
        self, model: nn.Module, rows: pa.Table, batches: Batches, pad_id: int, pad_left: bool = False
    ) -> pa.Table:
        """Return the labels and the probabilities (in float64) of the batches' rows."""
        import torch

        probabilities_of_batches = []
        with torch.no_grad():
            for indices in batches:
                logits = self.forward(model, self.collate(rows, indices, pad_id, pad_left)).double()
                values = logits.sigmoid() if self.has_several else logits.softmax(dim=-1)
                probabilities_of_batches.append(values.cpu().numpy())
        order, indices = in_table_order(batches)
        return self._with_probabilities(rows.take(indices), np.concatenate(probabilities_of_batches)[order])

    def compared(self, predictions: pa.Table) -> tuple[list[Any], list[Any]]:
        """Return the most probable and the true label of each row, by name; lists of names where rows have several."""
        if self.has_several:
            chosen = [np.flatnonzero(row >= self.constants["threshold"]) for row in probabilities(predictions)]
            both = (chosen, predictions["labels"].to_pylist())
            given, true = ([[self.labels[index] for index in row] for row in rows] for rows in both)
            return given, true
        columns = (predicted_labels(predictions), integers(predictions, "label"))
        first, second = ([self.labels[index] for index in column] for column in columns)
        return first, second

    def class_report(self, predictions: pa.Table) -> ClassReport:
        """Return the counts of each label, and which was taken for which where rows have one."""
        if self.has_several:
            return several_labels_report(predictions, self.labels)
        return one_label_report(
            integers(predictions, "label").astype(np.int64), predicted_labels(predictions), self.labels
        )

    def row_errors(self, predictions: pa.Table) -> RowErrors:
        """Return how far each row's probabilities are from its labels."""
        return label_errors(predictions)

    def right_predictions(self, rows: pa.Table) -> pa.Table:
        """Return probabilities of 1 for the true labels."""
        if self.has_several:
            return self._with_probabilities(rows, multi_hot(rows["labels"], len(self.labels)).astype(np.float64))
        return self._with_probabilities(rows, np.eye(len(self.labels))[integers(rows, "label")])

    def unanswered(self, inputs: pa.Table) -> pa.Table:
        """Return texts with label 0, or without labels, which no answer depends on."""
        rows = inputs.num_rows
        if self.has_several:
            return super().unanswered(inputs).append_column("labels", pa.array([[]] * rows, pa.list_(pa.int32())))
        return super().unanswered(inputs).append_column("label", pa.array(np.zeros(rows, np.int32)))

    def answer_columns(self, labels: Sequence[str]) -> dict[str, ColumnKind]:
        """Return ``label`` or ``labels``, and ``probability_LABEL`` for each label."""
        answers: dict[str, ColumnKind] = {"labels": "strings"} if self.has_several else {"label": "string"}
        probabilities: dict[str, ColumnKind] = {f"probability_{label}": "double" for label in labels}
        return {**answers, **probabilities}

    def answer(
        self,
        model: nn.Module,
        rows: pa.Table,
        batches: Batches,
        pad_id: int,
        pad_left: bool,
        labels: Sequence[str],
    ) -> pa.Table:
        """Return each row's most probable label, or all that reach the threshold, and the probability of each label."""
        predictions = self.predictions(model, rows, batches, pad_id, pad_left)
        values = probabilities(predictions)
        if self.has_several:
            lists = [
                [labels[index] for index in np.flatnonzero(row).tolist()]
                for row in values >= self.constants["threshold"]
            ]
            answers = pa.array(lists, pa.list_(pa.string()))
        else:
            answers = pa.array([labels[index] for index in predicted_labels(predictions).tolist()], pa.string())
        return pa.table([answers, *map(pa.array, values.T)], names=[*self.answer_columns(labels)])

    def answer_object(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Return ``label`` or ``labels``, and ``probabilities`` by label."""
        return with_probabilities_by_name(answer)

    def reproducible(self, predictions: pa.Table) -> NDArray[np.float64]:
        """Return the probabilities."""
        return probabilities(predictions)

    def answered(self, predictions: pa.Table) -> list[Any]:
        """Return the most probable label of each row, or all that reach the threshold."""
        return self.compared(predictions)[0]

    def predict_again(
        self, recorded: pa.Table, answer: Callable[[pa.Table], pa.Table], evaluate: Callable[[pa.Table], Evaluation]
    ) -> pa.Table:
        """Return predictions with the probabilities that a client gets."""
        _, *columns = answer(recorded).columns
        return self._with_probabilities(recorded, np.stack([column.to_numpy() for column in columns], axis=1))

    def example_output(self, labels: Sequence[str]) -> str:
        """Return the name of the most probable label, or of those that reach the threshold."""
        names = json.dumps(list(labels), ensure_ascii=False)
        if self.has_several:
            return f"[name for name, p in zip({names}, logits[0].sigmoid()) if p >= {self.constants['threshold']}]"
        return f"{names}[logits.argmax()]"

    def purpose(self, labels: Sequence[str]) -> str:
        """Return that it labels texts, and with what."""
        names = f"{len(labels)} labels ({', '.join(labels)})"
        return f"Assigns any of {names} to a text" if self.has_several else f"Assigns one of {names} to a text"

    def dummy_labels(self, input_ids: Tensor, attention_mask: Tensor, labels: int) -> Tensor:
        """Return the labels in turn, of shape ``(rows,)``; every other one, ``(rows, labels)``, of several."""
        import torch

        rows = torch.arange(len(input_ids), device=input_ids.device)
        if self.has_several:
            return ((rows[:, None] + torch.arange(labels, device=input_ids.device)) % 2).float()
        return rows % max(labels, 1)

    def _with_probabilities(self, rows: pa.Table, values: NDArray[np.float64]) -> pa.Table:
        column = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
        answers = [name for name in self.answer_sources if name in rows.column_names]
        return rows.select(["row", *answers]).append_column("probabilities", column)
