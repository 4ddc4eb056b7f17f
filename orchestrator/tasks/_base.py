"""What every type of task offers, whatever its model and its metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase

    from orchestrator.common.metric import Metric


@dataclass(frozen=True)
class Evaluation:
    """What a model makes of a split.

    Args:
        metrics: score by metric.
        predictions: one line per row in the split's order, with the row's number in ``row`` and whatever the
            metrics are computed from.
    """

    metrics: dict[str, float]
    predictions: pa.Table


class TaskType(Protocol):
    """Rows in, tokens, a loss and a score out.

    Split tables hold ``row`` (int64) and the type's own text columns. Tokenized tables hold ``row``, ``input_ids``
    (list of int32) and the type's own integers; they travel between processes without being copied.
    """

    @property
    def name(self) -> Literal["classification", "causal-lm"]:
        """As ``type`` in the configuration."""
        ...

    @property
    def auto_class(self) -> str:
        """The transformers class that loads its models."""
        ...

    @property
    def metrics(self) -> tuple[str, ...]:
        """What it can be scored by."""
        ...

    def metric(self, name: str) -> Metric:
        """Return the metric of that name.

        Raises:
            KeyError: if the type has none.
        """
        ...

    def tokenize(self, rows: pa.Table, tokenizer: PreTrainedTokenizerBase, max_length: int) -> pa.Table:
        """A tokenized table of a split, rows cut to ``max_length`` tokens."""
        ...

    def collate(
        self, rows: pa.Table, indices: NDArray[np.int64], pad_id: int, pad_left: bool = False
    ) -> dict[str, Tensor]:
        """A batch of a tokenized table, padded to its own longest row.

        Args:
            rows: tokenized.
            indices: of the batch's rows.
            pad_id: the padding token.
            pad_left: pad before the tokens, as decoders that are read at their last token need it; for the types
                of task where that can be.

        Returns:
            ``input_ids`` and ``attention_mask`` of shape ``(rows, tokens)``, and the type's ``labels``; int64.
        """
        ...

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """The scalar to minimise on a collated batch."""
        ...

    def evaluate(
        self,
        model: nn.Module,
        rows: pa.Table,
        batches: Sequence[NDArray[np.int64]],
        pad_id: int,
        pad_left: bool = False,
    ) -> Evaluation:
        """Score a model on the rows of the batches; its training mode is left as it is."""
        ...

    def score(self, metric: str, predictions: pa.Table) -> float:
        """A metric as a pure function of the predictions."""
        ...

    def score_many(self, metric: str, predictions: pa.Table, draws: NDArray[np.int64]) -> NDArray[np.float64]:
        """A metric on many samples of the predictions at once.

        Args:
            metric: which.
            predictions: as :class:`Evaluation` holds them.
            draws: indices of shape ``(samples, rows)``.

        Returns:
            Shape ``(samples,)``.
        """
        ...
