"""What a plan tells lanes of the memory of their GPU."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from orchestrator.engine.step_size import StepSize
from orchestrator.planning.plan import SweepPlan
from orchestrator.sweep.token_limits import token_limits


def task_plan(sizes: dict[str, StepSize | None], longest: int, *, has_room: bool = True) -> Any:
    """Return what a plan has of a task whose methods' default batches of 16 rows fit a GPU with these step sizes."""
    fits = {
        method: None if size is None else SimpleNamespace(size=size, rows=16 // size.micro_batches)
        for method, size in sizes.items()
    }
    space = SimpleNamespace(default={})
    return SimpleNamespace(
        room=SimpleNamespace(fit=lambda method, params: fits[method]) if has_room else None,
        estimates=SimpleNamespace(lengths=SimpleNamespace(longest=longest)),
        methods=[SimpleNamespace(method=method, available=True, space=space) for method in sizes],
    )


def limits(*tasks: Any) -> dict[str, int]:
    return token_limits(cast(SweepPlan, SimpleNamespace(tasks=dict(enumerate(tasks)))))


def test_token_limits_are_of_methods_whose_whole_batches_do_not_fit() -> None:
    sizes = {"ia3": StepSize(), "lora": StepSize(4), "full": StepSize(8, checkpointed=True), "unknown": None}
    assert limits(task_plan(sizes, 512)) == {"lora": 4 * 512, "full": 1}


def test_token_limits_are_the_lowest_of_all_tasks() -> None:
    short, long = task_plan({"lora": StepSize(2)}, 100), task_plan({"lora": StepSize(4)}, 120)
    assert limits(short, long) == limits(long, short) == {"lora": 4 * 120}


def test_token_limits_are_unknown_without_a_gpu() -> None:
    assert limits(task_plan({"lora": StepSize(4)}, 512, has_room=False)) == {}
