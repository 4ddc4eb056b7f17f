"""The test rows of a sweep that has ended, read again from its data: registered models carry digests of them alone."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

from orchestrator.backbone.source import resolve
from orchestrator.common.errors import InputError
from orchestrator.journal.folders import find_sweep
from orchestrator.sweep.resume import recorded_config
from orchestrator.sweep.saved_state import SavedSweep
from orchestrator.tasks import TASK_TYPES, read_task
from orchestrator.tasks.rendering import render_task

RENDERED = {"tools", "messages"}
"""Columns of conversations, which the tokenizer's template renders."""
HINT = "its test rows are needed, which the model does not carry; run this where the sweep is, or add --storage"


def rows_in(storage: str) -> Callable[[str, str], pa.Table]:
    """Return a function that reads the test split of a task of a sweep in a storage, by their names.

    Args:
        storage: folder or URI of the sweeps.
    """

    def find(sweep: str, task: str) -> pa.Table:
        try:
            saved = SavedSweep.of(find_sweep(sweep, storage))
            config = recorded_config(saved)
            task_type = config.tasks[task].type
            data = read_task(task, config.tasks[task], config.base, config.seed)
            if RENDERED & set(data.splits["test"].column_names):
                data = render_task(data, TASK_TYPES[task_type], resolve(config.backbone, config.base).tokenizer())
        except InputError as error:
            raise InputError(error.source, error.problems, HINT) from error
        return data.splits["test"]

    return find
