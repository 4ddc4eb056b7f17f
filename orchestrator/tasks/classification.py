"""One label per text: cross-entropy on the head's logits, macro F1 and accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.common.metric import Metric
from orchestrator.tasks._base import Evaluation
from orchestrator.tasks.tokens import INPUTS, device_of, integers, pad, ragged, token_column

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase


METRICS = {
    "macro_f1": Metric(name="macro_f1", label="macro-F1"),
    "accuracy": Metric(name="accuracy", label="accuracy"),
}


@dataclass(frozen=True)
class Classification:
    """Any ``AutoModelForSequenceClassification``, encoder or decoder.

    Split tables hold ``text`` and ``label`` (int32, an index into the task's labels). Predictions hold ``label``, the
    true one, and ``probabilities`` (a fixed-size list of float64).
    """

    name: Literal["classification"] = "classification"
    auto_class: str = "AutoModelForSequenceClassification"
    metrics: tuple[str, ...] = ("macro_f1", "accuracy")

    def metric(self, name: str) -> Metric:
        """Return the metric of that name."""
        return METRICS[name]

    def tokenize(self, rows: pa.Table, tokenizer: PreTrainedTokenizerBase, max_length: int) -> pa.Table:
        """Columns ``row``, ``input_ids``, ``label``; what is too long loses its end."""
        ids: list[list[int]] = []
        for batch in rows.select(["text"]).to_batches(max_chunksize=4096):
            texts = batch["text"].to_pylist()
            ids += tokenizer(texts, truncation=True, max_length=max_length, return_attention_mask=False)["input_ids"]
        return pa.table({"row": rows["row"], "input_ids": token_column(ids), "label": rows["label"]})

    def collate(
        self, rows: pa.Table, indices: NDArray[np.int64], pad_id: int, pad_left: bool = False
    ) -> dict[str, Tensor]:
        """``input_ids``, ``attention_mask`` of shape ``(rows, tokens)`` and ``labels`` of shape ``(rows,)``.

        A decoder classifies by its last token: pad it on the left, or soft prompts read the padding.
        """
        import torch

        values, starts = ragged(rows)
        batch = pad([values[starts[i] : starts[i + 1]] for i in indices], pad_id, pad_left)
        labels = integers(rows, "label")[indices].astype(np.int64)
        return {**batch, "labels": torch.from_numpy(labels)}

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """Mean cross-entropy over the rows."""
        from torch.nn import functional as F

        return F.cross_entropy(_logits(model, batch).float(), batch["labels"].to(device_of(model)))

    def evaluate(
        self,
        model: nn.Module,
        rows: pa.Table,
        batches: Sequence[NDArray[np.int64]],
        pad_id: int,
        pad_left: bool = False,
    ) -> Evaluation:
        """Probabilities (softmax in float64) of the batches' rows, and their metrics."""
        import torch

        found = []
        with torch.no_grad():
            for indices in batches:
                logits = _logits(model, self.collate(rows, indices, pad_id, pad_left))
                found.append(logits.double().softmax(dim=-1).cpu().numpy())
        indices = np.concatenate(batches)
        order = np.argsort(indices, kind="stable")
        predictions = _predictions(rows.select(["row", "label"]).take(indices[order]), np.concatenate(found)[order])
        return Evaluation({metric: self.score(metric, predictions) for metric in self.metrics}, predictions)

    def score(self, metric: str, predictions: pa.Table) -> float:
        """``macro_f1`` over all classes (an absent one counts 0), or ``accuracy``."""
        return float(self.score_many(metric, predictions, np.arange(predictions.num_rows)[None])[0])

    def score_many(self, metric: str, predictions: pa.Table, draws: NDArray[np.int64]) -> NDArray[np.float64]:
        """The metric of each sample in ``draws`` of shape ``(samples, rows)``."""
        true, predicted = integers(predictions, "label").astype(np.int64), predicted_labels(predictions)
        if metric == "accuracy":
            accuracy: NDArray[np.float64] = (true == predicted)[draws].mean(axis=1)
            return accuracy
        if metric == "macro_f1":
            return _macro_f1(true, predicted, draws, predictions.schema.field("probabilities").type.list_size)
        raise ValueError(f"unknown metric {metric!r}; known: {', '.join(self.metrics)}")


def predicted_labels(predictions: pa.Table) -> NDArray[np.int64]:
    """The most probable label of each row."""
    labels: NDArray[np.int64] = probabilities(predictions).argmax(axis=1)
    return labels


def probabilities(predictions: pa.Table) -> NDArray[np.float64]:
    """Shape ``(rows, classes)``."""
    classes = predictions.schema.field("probabilities").type.list_size
    flat: NDArray[np.float64] = predictions["probabilities"].combine_chunks().flatten().to_numpy()
    return flat.reshape(-1, classes)


def _logits(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    device = device_of(model)
    inputs = {name: batch[name].to(device) for name in INPUTS if name in batch}
    logits: Tensor = model(**inputs).logits
    return logits


def _predictions(rows: pa.Table, probabilities: NDArray[np.float64]) -> pa.Table:
    column = pa.FixedSizeListArray.from_arrays(pa.array(probabilities.ravel()), probabilities.shape[1])
    return rows.append_column("probabilities", column)


def _macro_f1(
    true: NDArray[np.int64], predicted: NDArray[np.int64], draws: NDArray[np.int64], classes: int
) -> NDArray[np.float64]:
    """Mean over classes of 2 tp / (2 tp + fp + fn), 0 where a class is neither true nor predicted."""
    cells = (true * classes + predicted)[draws] + np.arange(len(draws))[:, None] * classes**2
    confusion = np.bincount(cells.ravel(), minlength=len(draws) * classes**2).reshape(-1, classes, classes)
    hits = np.diagonal(confusion, axis1=1, axis2=2)
    marked = confusion.sum(axis=1) + confusion.sum(axis=2)
    scores: NDArray[np.float64] = (2 * hits / np.maximum(marked, 1)).mean(axis=1)
    return scores
