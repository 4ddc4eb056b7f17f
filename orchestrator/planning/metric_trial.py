"""Metrics that depend on what the rows hold, or on a user's own code, are tried before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from orchestrator.common.errors import InputError, Problem
from orchestrator.tasks import task_type
from orchestrator.tasks.data import TaskData
from orchestrator.tasks.user_metric import module_of, trial_problem

TRIED_ROWS = 8
SCORED_SPLITS = ("validation", "test")


def try_metrics(source: str, data: Mapping[str, TaskData]) -> None:
    """Compute the metrics that could fail, on predictions that equal their references.

    Args:
        source: The configuration, for the error.
        data: The tasks' rows.

    Raises:
        InputError: With the first problem of each such metric.
    """
    problems = [
        Problem(f"tasks.{name}.metric", problem)
        for name, task in data.items()
        for metric in task.config.metrics
        if (problem := _problem(task, metric))
    ]
    if problems:
        raise InputError(source, problems)


def _problem(task: TaskData, metric: str) -> str:
    type_ = task_type(task.config, labels=task.labels, constants=task.constants)
    if module_of(metric):
        rows = task.splits["validation"].slice(0, TRIED_ROWS)
    elif type_.metric(metric).needs_valid_references:
        rows = pa.concat_tables([task.splits[split] for split in SCORED_SPLITS])
    else:
        return ""
    return trial_problem(type_.metric(metric), type_.right_predictions(rows))
