"""What lanes are told of the memory of their GPU: the tokens that are expected to fit at once, by method."""

from __future__ import annotations

from orchestrator.engine.step_size import StepSize
from orchestrator.planning.plan import SweepPlan


def token_limits(plan: SweepPlan) -> dict[str, int]:
    """Return the tokens that fit without checkpointed blocks, of each method whose whole batches are not expected to.

    A lane that begins with them loses no step to find them out. It tries larger sizes after a few trials, so that a
    wrong estimate does not slow a method down for ever.
    """
    limits: dict[str, int] = {}
    for task in plan.tasks.values():
        if task.room is None or task.estimates is None:
            continue
        for method_plan in task.methods:
            fit = task.room.fit(method_plan.method, method_plan.space.default) if method_plan.available else None
            if fit is not None and fit.size != StepSize():
                tokens = 1 if fit.size.checkpointed else fit.rows * task.estimates.lengths.longest
                limits[method_plan.method] = min(tokens, limits.get(method_plan.method, tokens))
    return limits
