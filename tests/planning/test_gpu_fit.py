"""What fits a GPU beside the backbone, from given costs and for real architectures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from optuna.distributions import CategoricalDistribution, IntDistribution

from orchestrator.common.errors import InputError
from orchestrator.config import SweepConfig
from orchestrator.engine.gpu import Gpu
from orchestrator.engine.step_size import StepSize
from orchestrator.planning.capability import Capability, MethodConstraints, Probe, apply_constraints
from orchestrator.planning.capability.method_plan import MethodPlan
from orchestrator.planning.estimates import StepCost
from orchestrator.planning.gpu_budget import gpu_budget
from orchestrator.planning.gpu_fit import GpuFit, GpuRoom
from orchestrator.planning.lane_device import CONTEXT_BYTES, FRAGMENTATION, LaneDevice
from orchestrator.planning.row_lengths import RowLengths
from orchestrator.planning.task_estimates import TaskEstimates
from search_spaces._base import SearchSpace

L4, H100 = Gpu("L4", 24e9, bfloat16=True), Gpu("H100", 80e9, bfloat16=True)


class Estimates:
    """Fake: a step takes 10 bytes per unit of rank, and 100 for each row, or 40 with checkpointed blocks.

    Few layers take a quarter of the latter.
    """

    lengths = RowLengths(longest=512, mean=100.0, targets=10)
    layers_per_few_layers = 4.0

    def __init__(self, backbone_bytes: float = 0.0, four_bit_bytes: float = 0.0, kind: Any = None) -> None:
        self.backbone_bytes, self._four_bit_bytes = backbone_bytes, four_bit_bytes
        self.kind = kind or SimpleNamespace(is_divisible=True)
        self.estimated: list[int] = []

    def backbone_bytes_as(self, quantization: str) -> float:
        return self._four_bit_bytes

    def cost(self, method: str, params: Mapping[str, Any], rows: int, *, checkpointed: bool = False) -> StepCost | None:
        self.estimated.append(rows)
        return None if method == "unknown" else _cost(10 * params["rank"] + (40 if checkpointed else 100) * rows)

    def cost_in_few_layers(self, method: str, params: Mapping[str, Any]) -> StepCost | None:
        return _cost(0.25 * (10 * params["rank"] + 40))

    def scoring_bytes(self, method: str, params: Mapping[str, Any]) -> float:
        return 7.0


def _cost(count: float) -> StepCost:
    return StepCost(
        adapter_bytes=count,
        optimizer_bytes=0,
        activation_bytes=0,
        transient_bytes=0,
        flops=0,
        bytes_moved=0,
        calls=0,
    )


def room(room_bytes: float) -> GpuRoom:
    return GpuRoom(cast(TaskEstimates, Estimates()), room_bytes)


@pytest.mark.parametrize(
    ("room_bytes", "rows", "checkpointed"),
    [
        (1680, 16, False),
        (1679, 8, False),
        (879, 4, False),
        (479, 2, False),  # 1,024 tokens, which fill a GPU
        (279, 2, True),
        (159, 1, True),
        (119, None, True),
    ],
)
def test_gpu_fit_is_the_size_that_a_lane_finds(room_bytes: float, rows: int | None, checkpointed: bool) -> None:
    fit = room(room_bytes).fit("lora", {"rank": 8, "batch_size": 16})
    assert (fit and fit.rows) == rows
    if fit:
        assert fit.size.checkpointed == checkpointed
        assert fit.cost.peak_bytes == 80 + (40 if checkpointed else 100) * fit.rows <= room_bytes
        assert fit.fields()["rows_at_once"] == rows


def test_gpu_fit_keeps_a_batch_whole_that_cannot_be_divided() -> None:
    params = {"rank": 8, "batch_size": 16}

    def whole(room_bytes: float) -> GpuRoom:
        kind = SimpleNamespace(is_divisible=False)
        return GpuRoom(cast(TaskEstimates, Estimates(kind=kind)), room_bytes)

    for room_bytes, checkpointed in ((1680, False), (1679, True), (720, True)):
        fit = whole(room_bytes).fit("lora", params)
        assert fit is not None
        assert (fit.rows, fit.size.checkpointed) == (16, checkpointed)
    assert whole(719).fit("lora", params) is None
    assert "a batch of 16 rows, which cannot be divided," in whole(719).refusal("lora", params)


def test_gpu_fit_counts_scoring_where_it_takes_more() -> None:
    cost = _cost(100)
    assert GpuFit(size=StepSize(), batch_size=8, cost=cost, scoring_bytes=50).peak_bytes == 150
    step = replace(cost, adapter_bytes=10, activation_bytes=90)
    assert GpuFit(size=StepSize(), batch_size=8, cost=step, scoring_bytes=50).peak_bytes == 100


def test_gpu_fit_of_an_unknown_cost_limits_nothing() -> None:
    small = room(1.0)
    assert small.fit("unknown", {"rank": 8, "batch_size": 16}) is None
    assert small.excess("unknown", {"rank": 8}) < 0
    assert small.refusal("unknown", {"rank": 8}) == ""


def test_gpu_room_holds_a_space_by_its_largest_configuration() -> None:
    space = SearchSpace(
        distributions={"rank": IntDistribution(1, 64), "batch_size": CategoricalDistribution([8, 16])},
        default={"rank": 8, "batch_size": 8},
        sources={},
    )
    assert not room(679).holds_all_of("lora", space)
    assert room(680).holds_all_of("lora", space)


def test_gpu_room_without_a_full_estimate_where_few_layers_suffice() -> None:
    ample = room(1e6)
    space = SearchSpace(distributions={"rank": IntDistribution(1, 64)}, default={"rank": 8}, sources={})
    assert ample.holds_all_of("lora", space)
    assert cast(Estimates, ample.estimates).estimated == []


class Works:
    """Fake probe on which everything works."""

    def refusal(self, *_: Any) -> str:
        return ""

    def capability(self, method: str, params: Mapping[str, Any]) -> Capability:
        return Capability(method=method, available=True)


SPACE = SearchSpace(distributions={"rank": IntDistribution(2, 64)}, default={"rank": 32}, sources={})


def constrained(room_bytes: float) -> tuple[MethodPlan, MethodConstraints]:
    limits = MethodConstraints(cast(Probe, Works()), "lora", [], room(room_bytes))
    plan = MethodPlan(method="lora", available=True, space=SPACE)
    return apply_constraints(plan, limits), limits


def test_gpu_room_starts_a_search_at_what_fits() -> None:
    plan, limits = constrained(200)
    assert plan.available
    assert plan.space.default == {"rank": 16}
    assert "rank starts at 16 instead of 32: one row of 512 tokens takes 360 B" in plan.notes[0]
    assert limits({"rank": 16}) == (0.0,)
    assert not limits.allows({"rank": 17})


def test_gpu_room_leaves_out_a_method_with_its_reason() -> None:
    plan, _ = constrained(59)
    assert not plan.available
    assert plan.reason == (
        "one row of 512 tokens takes 60 B, even with checkpointed blocks, and the GPU has 59 B beside the backbone"
    )


def config(**backbone: Any) -> SweepConfig:
    task = {"type": "classification", "data": "rows.csv", "text": "text", "label": "label"}
    values = {"backbone": {"model": "llama", **backbone}, "tasks": {"mail": task}, "budget": {"trials": 1}}
    return SweepConfig.model_validate(values)


def budget_of(
    gpus: tuple[Gpu, ...],
    backbone_bytes: float,
    *,
    classes: tuple[str, ...] = ("AutoModel",),
    share: float = 1.0,
    **backbone: Any,
) -> Any:
    device = LaneDevice(kind="cuda", gpus=gpus, source="the cluster", here=False, share=share)
    estimates = [
        cast(TaskEstimates, Estimates(backbone_bytes, 5e9, SimpleNamespace(auto_class=name))) for name in classes
    ]
    return gpu_budget(config(**backbone), device, estimates)


def test_gpu_budget_is_what_backbones_and_cuda_leave() -> None:
    budget = budget_of((H100,), 6e9, classes=("AutoModel", "AutoModelForCausalLM", "AutoModel"))
    assert budget.backbone_bytes == 12e9  # tasks of one class share a backbone
    assert budget.room_bytes == pytest.approx(80e9 * (1 - FRAGMENTATION) - CONTEXT_BYTES - 12e9)
    assert budget_of((H100,), 6e9, share=0.5).room_bytes == pytest.approx(
        40e9 * (1 - FRAGMENTATION) - CONTEXT_BYTES - 6e9
    )
    assert budget_of((), 6e9) is None


def test_gpu_budget_is_of_the_smallest_gpu_that_holds_the_backbone() -> None:
    assert budget_of((L4, H100), 6e9).gpu == L4
    budget = budget_of((L4, H100), 40e9)
    assert budget.gpu == H100
    assert budget.too_small == (L4,)


def test_backbone_too_large_for_any_gpu_names_sizes_and_choices() -> None:
    with pytest.raises(InputError) as caught:
        budget_of((L4,), 40e9, quantization="none")
    line, hint = caught.value.lines()
    assert line == (
        "backbone.model: llama: takes 40.0 GB; a worker can use 21.7 GB of a GPU with 24.0 GB (the cluster)"
    )
    assert "split no model over GPUs" in hint
    assert "backbone.quantization: nf4, which takes 5.0 GB" in hint
    with pytest.raises(InputError) as caught:
        budget_of((L4,), 40e9)
    assert "nf4" not in caught.value.hint
