"""A plan that needs no checkpoint and no rows, and records of its trials."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from orchestrator.backbone.source import Source
from orchestrator.common.trial_types import TrialKey, TrialRecord
from orchestrator.config import SweepConfig
from orchestrator.config.overrides import as_mappings
from orchestrator.planning.plan import MethodPlan, SweepPlan, TaskPlan
from orchestrator.search.space import resolve
from orchestrator.tasks import TaskData, task_type

CLASSIFICATION = {"type": "classification", "data": "rows.csv", "text": "text", "label": "label"}
CAUSAL = {"type": "causal-lm", "data": "rows.csv", "prompt": "text", "completion": "label"}


def small_plan(methods: list[str], tasks: dict[str, Any] | None = None, **changes: Any) -> SweepPlan:
    """Return a plan in which every method can train every task, in at most 40 steps with a rung at 20."""
    values = {"name": "tiny", "backbone": {"model": "x"}, "tasks": tasks or {"mail": CLASSIFICATION}}
    config = SweepConfig.model_validate({"budget": {"trials": 10}, "seed": 3, "methods": methods, **values, **changes})
    split = pa.table({"row": [0, 1], "text": ["a", "b"], "label": [0, 1]})
    spaces = {name: resolve(name, as_mappings(config.search_space.get(name, {}))) for name in methods}
    method_plans = tuple(MethodPlan(method=name, available=True, space=space) for name, space in spaces.items())
    task_plans = {
        name: TaskPlan(
            TaskData(name, task, dict.fromkeys(("train", "validation", "test"), split), ("a", "b"), 0, 0, 0.5, "d"),
            task_type(task),
            method_plans,
        )
        for name, task in config.tasks.items()
    }
    return SweepPlan(config, Source("x", Path("x"), "d", portable=False), task_plans, 1000, (20, 40), None)  # type: ignore[arg-type]  # nothing is tokenized


def trial(name: str, state: str = "complete", values: dict[int, float] | None = None, **changes: Any) -> TrialRecord:
    """Return the record of the trial ``task/method/number``."""
    fields = {"params": {"rank": 8}, "state": state, "values": values or {}, **changes}
    return TrialRecord(key=TrialKey.parse(name), **fields)
