"""A metric of the user's own: a function ``score(predictions, references)`` in a Python file.

A file is trusted as a plugin's is: it is named in the configuration, read as source, registered in the processes that
score, and travels with the bundles of models that were scored by it. What it says about itself (the function, and
``DIRECTION``) is read without running it.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from methods.plugins.loader import load, parsed, register_source, source_of
from orchestrator.common.errors import first_line
from orchestrator.common.metric import Direction, Metric
from orchestrator.common.uris import expand_home
from orchestrator.tasks.row_sums import RowSums

REFERENCE = r"^.+\.py:[A-Za-z_][A-Za-z0-9_]*$"
"""How a configuration names a metric of the user's own: ``my_metric.py:score``."""
DRAWS_PER_SCORE = 5
"""Of so many resamples, one is scored by a function that returns one number: 200 of an interval's 1,000."""

Pairs = Callable[[pa.Table], tuple[list[Any], list[Any]]]
"""From a table of predictions to the predictions and the references that the function is called with."""


def is_reference(value: Any) -> bool:
    """Return whether a value names a function in a file."""
    return isinstance(value, str) and re.fullmatch(REFERENCE, value) is not None


def metric_name(name: str) -> str:
    """Return a metric's name in journals, bundles and MLflow: ``my_metric.score`` for ``path/my_metric.py:score``."""
    if not is_reference(name):
        return name
    file, _, function = name.rpartition(":")
    return f"{Path(file).stem}.{function}"


def reference_problem(reference: str, base: Path) -> str:
    """Return why a reference cannot be used, as far as it shows without running its code; empty if it can.

    Args:
        reference: As in the configuration.
        base: The folder that relative paths start from.
    """
    path, _, function = reference.rpartition(":")
    file = base / expand_home(path)
    if not file.is_file():
        return f"there is no {file}"
    tree = parsed(file)
    if isinstance(tree, str):
        return f"{path} {tree}"
    functions = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    if function not in functions:
        known = f"it defines {', '.join(functions)}" if functions else "it defines no function"
        return f"{path} has no function {function}; {known}"
    if _direction(tree) is None:
        return f'{path} says no direction; write DIRECTION = "maximize" or DIRECTION = "minimize" in it'
    return ""


def register(references: Iterable[str], base: Path) -> None:
    """Register the sources of the files that references name; other names are skipped."""
    for reference in filter(is_reference, references):
        file = base / expand_home(reference.rpartition(":")[0])
        register_source(file.stem, file.read_text(encoding="utf-8"))


def module_of(name: str) -> str | None:
    """Return the name of the file, without ``.py``, that a metric's function is in; ``None`` for built-in metrics."""
    module, dot, _ = name.partition(".")
    return module if dot else None


def user_metric(name: str, pairs: Pairs, *, needs_generation: bool) -> Metric:
    """Return the metric of a registered file's function.

    Args:
        name: ``my_metric.score``.
        pairs: What the task type lets the function compare.
        needs_generation: Whether that is generated text.
    """
    source = source_of(module_of(name) or "")
    return Metric(
        name=name,
        # A bundle that is used without its plugins' code has no need of the direction.
        direction=(source and _direction(ast.parse(source))) or "maximize",
        bounds=(-math.inf, math.inf),
        label=name,
        statistic=UserStatistic(name, pairs),
        needs_generation=needs_generation,
    )


@dataclass(frozen=True)
class UserStatistic:
    """Scores samples of rows by a function of the user's own.

    A function that returns a number for each row is called once, and resamples are means of its numbers. One that
    returns one number is called for each resample, of which only one in :data:`DRAWS_PER_SCORE` is scored; the others
    are undefined, as are those on which it raises.
    """

    name: str
    pairs: Pairs

    def __call__(self, predictions: pa.Table, draws: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the scores of samples of rows, of shape ``(samples,)``.

        Raises:
            ValueError: If the function raises on all rows, or returns anything but numbers, in one line.
        """
        generated, references = self.pairs(predictions)
        if len(draws) == 1 and np.array_equal(draws[0], np.arange(len(generated))):
            return np.array([np.mean(self.score(generated, references))])
        with suppress(_OneNumberError):
            return RowSums(self.name, self._per_row)(predictions, draws)
        scores = np.full(len(draws), math.nan)
        for number in range(0, len(draws), DRAWS_PER_SCORE):
            rows = draws[number]
            try:
                scores[number] = self.score([generated[row] for row in rows], [references[row] for row in rows])
            except ValueError:
                continue
        return scores

    def _per_row(self, predictions: pa.Table) -> NDArray[np.float64]:
        values = self.score(*self.pairs(predictions))
        if isinstance(values, float):
            raise _OneNumberError
        return values[:, None]

    def score(self, predictions: Sequence[Any], references: Sequence[Any]) -> float | NDArray[np.float64]:
        """Call the function once: a number, or an array with one for each row.

        Raises:
            ValueError: If it raises, or returns anything else, in one line.
        """
        module, _, function = self.name.partition(".")
        if source_of(module) is None:
            raise ValueError(f"metric {self.name} cannot be computed here: its file did not come with the model")
        try:
            value = getattr(load(module), function)(list(predictions), list(references))
        except Exception as error:
            raise ValueError(f"metric {self.name} raises {type(error).__name__}: {first_line(error)}") from error
        try:
            values = np.asarray(value, np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"metric {self.name} returns a {type(value).__name__}; {_WANTED}") from error
        if values.shape not in ((), (len(predictions),)):
            shape = " x ".join(map(str, values.shape))
            raise ValueError(f"metric {self.name} returns {shape} numbers for {len(predictions)} rows; {_WANTED}")
        return values if values.ndim else float(values)


class _OneNumberError(Exception):
    """The function returns one number for all rows, so that there are none to add up."""


_WANTED = "it must return one number, or a list with one for each row"


def trial_problem(metric: Metric, predictions: pa.Table) -> str:
    """Return what is wrong with a metric on a few rows that are predicted right; empty if nothing is.

    Args:
        metric: A metric of the user's own, or any other.
        predictions: Predictions that equal their references.
    """
    rows = predictions.num_rows
    samples = (np.arange(rows)[None], np.resize(np.arange(max(1, rows // 2)), rows)[None])
    try:
        assert metric.statistic is not None
        whole, resampled = (float(metric.statistic(predictions, draws)[0]) for draws in samples)
    except ValueError as error:
        return first_line(error)
    if not math.isfinite(whole):
        return f"metric {metric.name} returns {whole} on {rows} rows whose predictions are their references"
    if not math.isfinite(resampled):
        return f"metric {metric.name} cannot be computed on rows that occur twice, as every interval needs"
    return ""


def _direction(tree: ast.Module) -> Direction | None:
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Constant):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [target.id for target in targets if isinstance(target, ast.Name)]
            if "DIRECTION" in names and node.value.value in get_args(Direction):
                direction: Direction = node.value.value  # type: ignore[assignment]
                return direction
    return None
