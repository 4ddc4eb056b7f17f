"""What ``plan`` says of memory and time, from costs that are given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import BertConfig

from orchestrator.backbone.source import Source
from orchestrator.cli.output import console
from orchestrator.cli.output import methods as catalogue
from orchestrator.cli.output.plan import plan_json, print_plan
from orchestrator.common.units import size
from orchestrator.planning import forecast as module
from orchestrator.planning.estimates import Batch, DeviceThroughput, StepCost
from orchestrator.planning.forecast import MethodForecast, SweepForecast, forecast
from orchestrator.planning.plan import SweepPlan

from ..small_plan import small_plan

STEPS, VALIDATED = 40, 64


class Model:
    """A step costs as many operations as the batch has tokens; prefix asks for numbers."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def cost(self, method: str, params: Mapping[str, Any], batch: Batch) -> StepCost | None:
        if method == "prefix":
            return None
        tokens = batch.rows * batch.tokens
        return StepCost(
            adapter=100, optimizer=200, activations=1000, transient_bytes=50, flops=tokens, bytes_moved=0, calls=0
        )


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> SweepPlan:
    """Rows of 20 tokens where they are longest and 10 where they are not, a token a second."""
    monkeypatch.setattr(module, "StepModel", Model)
    monkeypatch.setattr(module, "_rows", lambda *_: module._Rows(longest=20, usual=10.0, targets=1))
    monkeypatch.setattr(DeviceThroughput, "measured", lambda *_: DeviceThroughput(flops=1.0, bytes=1.0, calls=1.0))
    monkeypatch.setattr(Source, "config", lambda _: BertConfig())
    return small_plan(
        ["lora", "prefix"],
        training={"max_steps": STEPS, "max_length": 32, "validation_rows": VALIDATED},
        search_space={"lora": {"batch_size": {"value": 8}}},
        budget={"trials": 10},
        selection={"seeds": 3, "contenders": 2},
    )


def test_memory_is_of_the_longest_rows_and_time_of_the_usual_ones(plan: SweepPlan) -> None:
    found = forecast(plan).tasks["mail"]["lora"]
    assert found.peak_bytes == 1350
    assert found.seconds_per_step == 8 * 10
    passes = plan.tasks["mail"].plan_of("lora").passes
    assert found.seconds == STEPS * 80 + len(plan.rungs) * VALIDATED * 10 / passes


def test_a_sweep_takes_its_trials_and_the_retrainings(plan: SweepPlan) -> None:
    found = forecast(plan)
    assert found.lane_seconds == pytest.approx((10 + 2 * 3) * found.tasks["mail"]["lora"].seconds)


@pytest.mark.parametrize(("pack", "peak"), [(1, 1350), (3, 3 * 1300 + 50)])
def test_a_lane_may_hold_several_trials_of_the_largest_method(plan: SweepPlan, pack: int, peak: int) -> None:
    config = plan.config.model_copy(update={"lanes": plan.config.lanes.model_copy(update={"pack": pack})})
    found = forecast(replace(plan, config=config))
    assert found.lane_bytes == peak
    with console.console.capture() as captured:
        print_plan(plan, Path("mail.yaml"), found)
    assert f"memory    up to {size(peak)} in a lane, beside the backbone" in captured.get()


def test_what_cannot_be_told_is_left_out(plan: SweepPlan) -> None:
    found = forecast(plan)
    assert set(found.tasks["mail"]) == {"lora"}
    told = plan_json(plan, found)
    rows = {row["name"]: row["estimate"] for row in told["tasks"]["mail"]["methods"]}
    assert rows == {"lora": {"peak_memory_bytes": 1350, "seconds_per_step": 80}, "prefix": None}
    assert told["estimated_lane_seconds"] == found.lane_seconds
    limited = plan.config.model_copy(update={"budget": plan.config.budget.model_copy(update={"trials": None})})
    unlimited = replace(plan, config=limited)
    assert forecast(unlimited).lane_seconds is None


def test_a_plan_without_a_forecast_has_no_estimates(plan: SweepPlan) -> None:
    told = plan_json(plan)
    assert told["estimated_lane_seconds"] is None
    assert {row["estimate"] for row in told["tasks"]["mail"]["methods"]} == {None}


def test_people_see_memory_and_seconds_beside_each_method(plan: SweepPlan) -> None:
    cost = StepCost(adapter=4e6, optimizer=0, activations=460e6, transient_bytes=0, flops=0, bytes_moved=0, calls=0)
    one = MethodForecast(cost=cost, seconds_per_step=0.345, seconds=20)
    with console.console.capture() as captured:
        catalogue.print_capabilities(plan.tasks["mail"].methods, SweepForecast({"mail": {"lora": one}}).tasks["mail"])
    lines = captured.get().splitlines()
    assert lines[0].split()[-2:] == ["memory", "s/step"]
    assert lines[1].split()[-3:] == ["464", "MB", "0.34"]
    assert lines[2].split()[-1] == "no"
