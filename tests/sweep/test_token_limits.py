"""What a plan tells lanes of the memory of their GPU."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from orchestrator.planning.estimates import StepCost
from orchestrator.planning.gpu_fit import GpuRoom
from orchestrator.planning.plan import SweepPlan
from orchestrator.planning.row_lengths import RowLengths
from orchestrator.sweep.token_limits import token_limits
from orchestrator.tasks import TASK_TYPES

ROW_BYTES = {"ia3": 10, "lora": 100, "dora": 1000, "full": 100_000}


class Estimates:
    """Fake: a row takes the method's bytes, and a tenth of them with checkpointed blocks."""

    kind = TASK_TYPES["classification"]

    def __init__(self, longest: int) -> None:
        self.lengths = RowLengths(longest=longest, mean=100.0, targets=10)

    def cost(self, method: str, params: Any, rows: int, *, checkpointed: bool = False) -> StepCost:
        count = rows * ROW_BYTES[method] * (0.1 if checkpointed else 1)
        nothing = {"optimizer_bytes": 0, "activation_bytes": 0, "transient_bytes": 0, "flops": 0, "bytes_moved": 0}
        return StepCost(adapter_bytes=count, calls=0, **nothing)

    def scoring_bytes(self, method: str, params: Any) -> float:
        return 0.0


def task_plan(room_bytes: float | None, longest: int) -> Any:
    """Return what a plan has of a task whose methods have batches of 16 rows."""
    estimates: Any = Estimates(longest)
    space = SimpleNamespace(default={"batch_size": 16})
    return SimpleNamespace(
        room=None if room_bytes is None else GpuRoom(estimates, room_bytes),
        estimates=estimates,
        methods=[SimpleNamespace(method=method, available=True, space=space) for method in ROW_BYTES],
    )


def limits(*tasks: Any) -> dict[str, int]:
    return token_limits(cast(SweepPlan, SimpleNamespace(tasks=dict(enumerate(tasks)))))


def test_token_limits_are_of_methods_whose_whole_batches_do_not_fit() -> None:
    assert limits(task_plan(450, 512)) == {"lora": 4 * 512, "dora": 1}, "the largest parts, or checkpointed blocks"


def test_token_limits_are_the_lowest_of_all_tasks() -> None:
    short, long = task_plan(450, 512), task_plan(250, 600)
    assert limits(short, long) == limits(long, short) == {"lora": 2 * 600, "dora": 1}


def test_token_limits_are_unknown_without_a_gpu() -> None:
    assert limits(task_plan(None, 512)) == {}
