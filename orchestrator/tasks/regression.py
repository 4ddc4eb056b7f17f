"""One number per text or pair of texts: squared error on standardized targets; Spearman correlation and others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from orchestrator.common.errors import InputError, Problem
from orchestrator.tasks.batches import Batches
from orchestrator.tasks.class_report import RowErrors
from orchestrator.tasks.column_types import flags
from orchestrator.tasks.columns import Column
from orchestrator.tasks.contract.scoring import Evaluation
from orchestrator.tasks.file_headers import Key
from orchestrator.tasks.inputs import ColumnKind
from orchestrator.tasks.metric_field import MetricNames, MetricsOf
from orchestrator.tasks.regression_metrics import METRICS
from orchestrator.tasks.text_pairs import TextSection, TextType
from orchestrator.tasks.tokens import device_of, in_table_order
from orchestrator.tasks.trivial import TrivialPredictor

if TYPE_CHECKING:
    from torch import Tensor, nn


LARGEST = 1e100


class RegressionTask(TextSection):
    """One number per text or pair of texts."""

    type: Literal["regression"]
    """One number per text or pair of texts."""
    target: str
    """Column of the numbers, in any unit."""
    metric: Annotated[MetricNames, MetricsOf(METRICS)] = METRICS[0].name
    """What the search optimizes: a name, or a list whose first is optimized and whose others are recorded beside it.
    ``rmse`` is in the target's unit."""

    def content_columns(self) -> dict[Key, list[str]]:
        """Return the columns of texts and numbers."""
        return {**super().content_columns(), ("target",): [self.target]}

    def contents(self, columns: Mapping[str, Column]) -> dict[str, pa.Array]:
        """Return the texts and ``target`` (float64)."""
        column = columns[self.target]
        # Squares of larger numbers, and sums of these, are beyond what float64 holds.
        too_large = flags(pc.greater(pc.abs(column.numbers), LARGEST), null=False)
        if too_large.any():
            column.refuse(too_large, f"is a number beyond {LARGEST:g}; write targets in a larger unit")
        return {**super().contents(columns), "target": column.numbers}

    def encode(
        self, tables: dict[str, pa.Table], files: Mapping[str, str], key: str
    ) -> tuple[dict[str, pa.Table], tuple[str, ...]]:
        """Return the tables as they are, and the name of the target's column.

        Raises:
            InputError: If all training rows have the same target.
        """
        targets = tables["train"]["target"].to_numpy()
        if np.ptp(targets) == 0:
            rows = "the only row has" if len(targets) == 1 else f"all {len(targets):,} rows have"
            message = f"{rows} the target {targets[0]:g}; two different numbers are needed"
            raise InputError(files["train"], [Problem(f"{key}.target", message)])
        return tables, (self.target,)

    def constants(self, train: pa.Table) -> dict[str, float]:
        """Return the training targets' mean and standard deviation, by which they are standardized."""
        targets = train["target"].to_numpy()
        return {"mean": float(targets.mean()), "std": float(targets.std()) or 1.0}


class Regression(TextType):
    """Any ``AutoModelForSequenceClassification`` with one output, encoder or decoder.

    Split tables hold the texts and ``target`` (float64). The model learns ``(target - mean) / std`` with the constants
    of the training rows; predictions hold ``target`` and ``predicted`` in the target's unit.
    """

    section = RegressionTask
    metrics = METRICS
    answer_sources = ("target",)
    example_labels = 1
    baseline_metric = "rmse"
    baseline_name = "training mean"

    def baseline(self, splits: Mapping[str, pa.Table]) -> float:
        """Return the RMSE of always answering the mean of the training targets."""
        train, test = (splits[name]["target"].to_numpy() for name in ("train", "test"))
        return float(np.sqrt(((test - train.mean()) ** 2).mean()))

    def trivial_predictors(self, splits: Mapping[str, pa.Table], predictions: pa.Table) -> tuple[TrivialPredictor, ...]:
        """Return mean and median of the training targets, for every row."""
        targets, rows = splits["train"]["target"].to_numpy(), predictions.num_rows
        return tuple(
            TrivialPredictor(
                f"always answering the training {name}, {number:.4g}",
                (_with_numbers(predictions, np.full(rows, float(number))),),
            )
            for name, number in (("mean", targets.mean()), ("median", np.median(targets)))
        )

    def constant_answer(self, predictions: pa.Table) -> str:
        """Return the number that all rows get, up to a millionth of the targets' spread."""
        numbers = predictions["predicted"].to_numpy()
        spread = float(np.ptp(predictions["target"].to_numpy()))
        return f"{numbers[0]:.4g}" if len(numbers) > 1 and np.ptp(numbers) <= 1e-6 * spread else ""

    def collate(
        self, rows: pa.Table, indices: NDArray[np.int64], pad_id: int, pad_left: bool = False
    ) -> dict[str, Tensor]:
        """Return the padded rows, and standardized targets of shape ``(rows,)`` as ``labels``."""
        import torch

        mean, std = self._scale
        targets = ((rows["target"].to_numpy()[indices] - mean) / std).astype(np.float32)
        return {**self.padded(rows, indices, pad_id, pad_left), "labels": torch.from_numpy(targets)}

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """Return the mean squared error of the standardized targets."""
        from torch.nn import functional as F

        return F.mse_loss(self.forward(model, batch)[:, 0].float(), batch["labels"].to(device_of(model)))

    def loss_terms(self, batch: dict[str, Tensor]) -> int:
        """Return the number of rows; a standardized target may be any number."""
        return len(batch["labels"])

    def predictions(
        self, model: nn.Module, rows: pa.Table, batches: Batches, pad_id: int, pad_left: bool = False
    ) -> pa.Table:
        """Return the targets, and the predicted numbers in their unit."""
        import torch

        numbers, (mean, std) = [], self._scale
        with torch.no_grad():
            for indices in batches:
                outputs = self.forward(model, self.collate(rows, indices, pad_id, pad_left))
                numbers.append(outputs[:, 0].double().cpu().numpy())
        order, indices = in_table_order(batches)
        predicted = np.concatenate(numbers)[order] * std + mean
        return _with_numbers(rows.take(indices), predicted)

    def compared(self, predictions: pa.Table) -> tuple[list[Any], list[Any]]:
        """Return the predicted number and the target of each row."""
        return predictions["predicted"].to_pylist(), predictions["target"].to_pylist()

    def row_errors(self, predictions: pa.Table) -> RowErrors:
        """Return the absolute error of each row, in units of the target."""
        error = predictions["predicted"].to_numpy() - predictions["target"].to_numpy()
        return RowErrors("absolute error", np.abs(error))

    def right_predictions(self, rows: pa.Table) -> pa.Table:
        """Return the targets as predictions."""
        return _with_numbers(rows, rows["target"].to_numpy())

    def unanswered(self, inputs: pa.Table) -> pa.Table:
        """Return texts with target 0, which no answer depends on."""
        return super().unanswered(inputs).append_column("target", pa.array(np.zeros(inputs.num_rows)))

    def answer_columns(self, labels: Sequence[str]) -> dict[str, ColumnKind]:
        """Return ``prediction``."""
        return {"prediction": "double"}

    def answer(
        self,
        model: nn.Module,
        rows: pa.Table,
        batches: Batches,
        pad_id: int,
        pad_left: bool,
        labels: Sequence[str],
    ) -> pa.Table:
        """Return the predicted number of each row, in the target's unit."""
        predictions = self.predictions(model, rows, batches, pad_id, pad_left)
        return pa.table({"prediction": predictions["predicted"]})

    reproducible_name = "predicted number, in standard deviations of the target"

    def reproducible(self, predictions: pa.Table) -> NDArray[np.float64]:
        """Return the predicted numbers in standard deviations of the target, so that a tolerance suits any unit."""
        numbers: NDArray[np.float64] = predictions["predicted"].to_numpy() / self._scale[1]
        return numbers[:, None]

    def predict_again(
        self, recorded: pa.Table, answer: Callable[[pa.Table], pa.Table], evaluate: Callable[[pa.Table], Evaluation]
    ) -> pa.Table:
        """Return predictions with the numbers that a client gets."""
        return _with_numbers(recorded, answer(recorded)["prediction"].to_numpy())

    def example_output(self, labels: Sequence[str]) -> str:
        """Return the predicted number in the target's unit."""
        mean, std = self._scale
        return f"{mean!r} + {std!r} * logits.item()"

    def purpose(self, labels: Sequence[str]) -> str:
        """Return that it predicts a number, and which."""
        mean, std = self._scale
        name = labels[0] if labels else "a number"
        return f"Predicts `{name}` of a text, a number (training rows: mean {mean:.4g}, standard deviation {std:.4g})"

    def dummy_labels(self, input_ids: Tensor, attention_mask: Tensor, labels: int) -> Tensor:
        """Return numbers around 0, of shape ``(rows,)``."""
        import torch

        return torch.arange(len(input_ids), device=input_ids.device) % 2 - 0.5

    @property
    def _scale(self) -> tuple[float, float]:
        return self.constants.get("mean", 0.0), self.constants.get("std", 1.0)


def _with_numbers(rows: pa.Table, predicted: NDArray[np.float64]) -> pa.Table:
    return rows.select(["row", "target"]).append_column("predicted", pa.array(predicted))
