"""The forecast of memory and time that ``plan`` shows, from given costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import BertConfig

from orchestrator.backbone.source import Source
from orchestrator.cli.output import console
from orchestrator.cli.output.methods import print_capabilities
from orchestrator.cli.output.plan import plan_json, print_plan
from orchestrator.common.units import size
from orchestrator.planning import forecast as module
from orchestrator.planning.estimates import Batch, DeviceThroughput, StepCost
from orchestrator.planning.forecast import MethodForecast, SweepForecast, forecast
from orchestrator.planning.plan import SweepPlan

from ..small_plan import small_plan

STEPS, VALIDATION_ROWS = 40, 64


class Model:
    """Fake whose steps cost one FLOP per token of the batch; prefix cannot be estimated."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def cost(self, method: str, params: Mapping[str, Any], batch: Batch) -> StepCost | None:
        if method == "prefix":
            return None
        tokens = batch.rows * batch.tokens
        return StepCost(
            adapter_bytes=100,
            optimizer_bytes=200,
            activation_bytes=1000,
            transient_bytes=50,
            flops=tokens,
            bytes_moved=0,
            calls=0,
        )


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> SweepPlan:
    """A plan over rows of at most 20 and on average 10 tokens, on a machine of one token per second."""
    monkeypatch.setattr(module, "StepModel", Model)
    monkeypatch.setattr(module, "_row_lengths", lambda *_: module._RowLengths(longest=20, mean=10.0, targets=1))
    monkeypatch.setattr(
        DeviceThroughput,
        "measure",
        lambda *_: DeviceThroughput(flops_per_second=1.0, bytes_per_second=1.0, calls_per_second=1.0),
    )
    monkeypatch.setattr(Source, "config", lambda _: BertConfig())
    return small_plan(
        ["lora", "prefix"],
        training={"max_steps": STEPS, "max_length": 32, "validation_rows": VALIDATION_ROWS},
        search_space={"lora": {"batch_size": {"value": 8}}},
        budget={"trials": 10},
        selection={"seeds": 3, "contenders": 2},
    )


def test_forecast_memory_uses_longest_rows_and_time_mean_rows(plan: SweepPlan) -> None:
    lora = forecast(plan).tasks["mail"]["lora"]
    assert lora.peak_bytes == 1350
    assert lora.seconds_per_step == 8 * 10
    passes = plan.tasks["mail"].plan_of("lora").passes
    assert lora.seconds == STEPS * 80 + len(plan.rungs) * VALIDATION_ROWS * 10 / passes


def test_forecast_lane_seconds_count_trials_and_retrainings(plan: SweepPlan) -> None:
    sweep_forecast = forecast(plan)
    assert sweep_forecast.lane_seconds == pytest.approx((10 + 2 * 3) * sweep_forecast.tasks["mail"]["lora"].seconds)


@pytest.mark.parametrize(("pack", "peak"), [(1, 1350), (3, 3 * 1300 + 50)])
def test_forecast_lane_bytes_count_a_pack_of_largest_trials(plan: SweepPlan, pack: int, peak: int) -> None:
    config = plan.config.model_copy(update={"lanes": plan.config.lanes.model_copy(update={"pack": pack})})
    sweep_forecast = forecast(replace(plan, config=config))
    assert sweep_forecast.lane_bytes == peak
    with console.console.capture() as captured:
        print_plan(plan, Path("mail.yaml"), sweep_forecast)
    assert f"memory    up to {size(peak)} per lane, in addition to the backbone" in captured.get()


def test_forecast_leaves_out_what_cannot_be_estimated(plan: SweepPlan) -> None:
    sweep_forecast = forecast(plan)
    assert set(sweep_forecast.tasks["mail"]) == {"lora"}
    values = plan_json(plan, sweep_forecast)
    rows = {row["name"]: row["estimate"] for row in values["tasks"]["mail"]["methods"]}
    assert rows == {"lora": {"peak_memory_bytes": 1350, "seconds_per_step": 80}, "prefix": None}
    assert values["estimated_lane_seconds"] == sweep_forecast.lane_seconds
    limited = plan.config.model_copy(update={"budget": plan.config.budget.model_copy(update={"trials": None})})
    unlimited = replace(plan, config=limited)
    assert forecast(unlimited).lane_seconds is None


def test_plan_json_without_a_forecast_has_no_estimates(plan: SweepPlan) -> None:
    values = plan_json(plan)
    assert values["estimated_lane_seconds"] is None
    assert {row["estimate"] for row in values["tasks"]["mail"]["methods"]} == {None}


def test_plan_shows_memory_and_seconds_of_each_method(plan: SweepPlan) -> None:
    cost = StepCost(
        adapter_bytes=4e6, optimizer_bytes=0, activation_bytes=460e6, transient_bytes=0, flops=0, bytes_moved=0, calls=0
    )
    lora = MethodForecast(cost=cost, seconds_per_step=0.345, seconds=20)
    with console.console.capture() as captured:
        print_capabilities(plan.tasks["mail"].methods, SweepForecast({"mail": {"lora": lora}}).tasks["mail"])
    lines = captured.get().splitlines()
    assert lines[0].split()[-2:] == ["memory", "s/step"]
    assert lines[1].split()[-3:] == ["464", "MB", "0.34"]
    assert lines[2].split()[-1] == "no"
