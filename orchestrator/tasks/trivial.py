"""Trivial predictors: what can be answered without reading a row, and what that scores.

Their predictions are a model's predictions of the same rows with other answers, so that they are scored by the same
metric on the same rows, and compared with a model row by row. A predictor that draws its answers is drawn several
times: its score is the mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Integers = NDArray[np.int64]
MIN_DRAWS, MAX_DRAWS, DRAWN_ROWS = 8, 64, 20_000
"""Bounds of how often a predictor draws its answers, and the answers in all that it draws between them."""
AT_RANDOM = "drawing labels in the training rows' proportions"


@dataclass(frozen=True)
class TrivialPredictor:
    """A predictor that needs no model.

    Args:
        name: What it does, as in "no method was better than NAME".
        predictions: Its predictions of the scored rows, one table for each draw.
    """

    name: str
    predictions: tuple[pa.Table, ...]

    def statistic(
        self, score: Callable[[pa.Table, Integers], NDArray[np.float64]]
    ) -> Callable[[Integers], NDArray[np.float64]]:
        """Return its scores as a function of row indices of shape ``(samples, rows)``.

        Args:
            score: The same function of predictions and row indices.
        """
        return lambda draws: np.mean([score(table, draws) for table in self.predictions], axis=0)


def draws(rows: int) -> int:
    """Return how often a predictor draws its answers, so that what it scores is hardly left to chance."""
    return min(MAX_DRAWS, max(MIN_DRAWS, DRAWN_ROWS // max(1, rows)))


def repeated(name: str, answered: Callable[[Integers], pa.Table], code: int, rows: int) -> TrivialPredictor:
    """Return the predictor that gives every row one answer.

    Args:
        name: What it does.
        answered: From the number of each row's answer to predictions.
        code: Number of the answer.
        rows: Number of rows.
    """
    return TrivialPredictor(name, (answered(np.full(rows, code, np.int64)),))


def drawn(name: str, answered: Callable[[Integers], pa.Table], codes: Integers, rows: int) -> TrivialPredictor:
    """Return the predictor that draws each row's answer from the training rows' answers.

    Of all predictors that read nothing, it has the highest macro-F1: a class with the share p is answered with the
    share q, so that its F1 is 2pq / (p + q), whose sum over the classes is largest for q = p.
    """
    return TrivialPredictor(name, tuple(answered(sample) for sample in _samples(codes, rows)))


def _samples(codes: Integers, rows: int) -> Iterator[Integers]:
    """Yield answers in the proportions of the training rows, each in another order."""
    evenly = np.sort(codes)[np.linspace(0, len(codes) - 1, rows).round().astype(np.int64)]
    for seed in range(draws(rows)):
        yield np.random.default_rng(seed).permutation(evenly)


def most_frequent(codes: Integers) -> int:
    """Return the most frequent of some numbers from 0 on."""
    return int(np.bincount(codes).argmax())


def most_frequent_text(texts: Sequence[str]) -> str:
    """Return the most frequent of some texts, the first of several."""
    counts: Mapping[str, int] = dict(zip(*np.unique(np.asarray(texts, object), return_counts=True), strict=True))
    return max(dict.fromkeys(texts), key=counts.__getitem__)


def with_column(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    """Return a table with another content of one of its columns."""
    return table.set_column(table.column_names.index(name), name, values)


def has_texts(predictions: pa.Table) -> bool:
    """Return whether a model wrote a text for each row."""
    return "generated" in predictions.column_names and not predictions["generated"].null_count


def written(predictions: pa.Table, texts: Mapping[str, Sequence[str]]) -> tuple[TrivialPredictor, ...]:
    """Return predictors that write a text for each row.

    Args:
        predictions: Predictions with ``generated`` texts.
        texts: What each predictor writes, by its name.
    """
    return tuple(
        TrivialPredictor(name, (with_column(predictions, "generated", pa.array(rows, pa.string())),))
        for name, rows in texts.items()
    )
