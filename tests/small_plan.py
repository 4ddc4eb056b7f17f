"""A plan that needs no checkpoint and no rows, and records of its trials."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from orchestrator.backbone.source import Source
from orchestrator.common.trial_types import TrialKey, TrialRecord
from orchestrator.config import SweepConfig
from orchestrator.planning.plan import MethodPlan, SweepPlan, TaskPlan
from orchestrator.tasks import TaskData, task_type

CLASSIFICATION = {"type": "classification", "data": "rows.csv", "text": "text", "label": "label"}
CAUSAL = {"type": "causal-lm", "data": "rows.csv", "prompt": "text", "completion": "label"}


def small_plan(methods: list[str], tasks: dict[str, Any] | None = None, **changes: Any) -> SweepPlan:
    """Every method can train every task, in at most 40 steps with a rung at 20."""
    values = {"name": "tiny", "backbone": {"model": "x"}, "tasks": tasks or {"mail": CLASSIFICATION}}
    config = SweepConfig.model_validate({"budget": {"trials": 10}, "seed": 3, "methods": methods, **values, **changes})
    split = pa.table({"row": [0, 1], "text": ["a", "b"], "label": [0, 1]})
    found = tuple(MethodPlan(method=name, available=True) for name in methods)
    planned = {
        name: TaskPlan(
            TaskData(name, task, dict.fromkeys(("train", "validation", "test"), split), ("a", "b"), 0, 0, 0.5, "d"),
            task_type(task),
            found,
        )
        for name, task in config.tasks.items()
    }
    return SweepPlan(config, Source("x", Path("x"), "d", portable=False), planned, 1000, (20, 40), None)  # type: ignore[arg-type]  # nothing is tokenized


def trial(name: str, state: str = "complete", values: dict[int, float] | None = None, **changes: Any) -> TrialRecord:
    """The record of ``task/method/number``."""
    fields = {"params": {"rank": 8}, "state": state, "values": values or {}, **changes}
    return TrialRecord(key=TrialKey.parse(name), **fields)
