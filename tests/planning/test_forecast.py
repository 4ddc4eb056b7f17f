"""The forecast of memory and time that ``plan`` shows, from given costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pytest
import torch

from orchestrator.cli.output import console
from orchestrator.cli.output.methods import print_capabilities
from orchestrator.cli.output.plan import plan_json, print_plan
from orchestrator.common.units import duration, size
from orchestrator.engine.gpu import Gpu
from orchestrator.planning.estimates import DeviceThroughput, StepCost
from orchestrator.planning.forecast import MethodForecast, SweepForecast, forecast
from orchestrator.planning.gpu_budget import GpuBudget
from orchestrator.planning.gpu_fit import GpuRoom
from orchestrator.planning.lane_device import LaneDevice
from orchestrator.planning.plan import SweepPlan
from orchestrator.planning.row_lengths import RowLengths
from orchestrator.planning.task_estimates import TaskEstimates
from orchestrator.tasks import TASK_TYPES

from ..small_plan import CAUSAL, small_plan

STEPS, VALIDATION_ROWS = 40, 64


class Estimates:
    """Fake over rows of at most 20 and on average 10 tokens, whose steps cost one FLOP per token of the longest rows.

    Steps of prefix cannot be estimated.
    """

    lengths = RowLengths(longest=20, mean=10.0, targets=5)
    kind = TASK_TYPES["classification"]

    def __init__(self, plan: SweepPlan) -> None:
        self.config = plan.config

    def cost(self, method: str, params: Mapping[str, Any], rows: int, *, checkpointed: bool = False) -> StepCost | None:
        return None if method == "prefix" else self._cost(rows * self.lengths.longest)

    def scoring_bytes(self, method: str, params: Mapping[str, Any]) -> float:
        return 1.0

    def generation_rows(self, new_tokens: int) -> int:
        return self.config.training.evaluation_batch

    def generation_cost(self, method: str, params: Mapping[str, Any], rows: int) -> StepCost | None:
        return self._cost(self.config.training.evaluation_batch)

    def _cost(self, tokens: int) -> StepCost:
        return StepCost(
            adapter_bytes=100,
            optimizer_bytes=200,
            activation_bytes=1000,
            transient_bytes=50,
            flops=tokens,
            bytes_moved=0,
            calls=0,
        )


def make_plan(tasks: dict[str, Any] | None = None, rows: int = 100, **changes: Any) -> SweepPlan:
    """Return a plan of lora, prefix and hard_prompt over so many validation rows."""
    plan = small_plan(
        ["lora", "prefix", "hard_prompt"],
        tasks,
        search_space={"lora": {"batch_size": {"value": 8}}},
        budget={"trials": 10},
        selection={"seeds": 3, "contenders": 2},
        **{"training": {"max_steps": STEPS, "max_length": 32, "validation_rows": VALIDATION_ROWS}, **changes},
    )
    task = plan.tasks["mail"]
    data = replace(task.data, splits={**task.data.splits, "validation": pa.table({"row": range(rows)})})
    return replace(plan, tasks={"mail": replace(task, data=data, estimates=cast(TaskEstimates, Estimates(plan)))})


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> SweepPlan:
    """A plan on a machine that computes one FLOP per second."""
    monkeypatch.setattr(
        DeviceThroughput,
        "measure",
        lambda *_: DeviceThroughput(flops_per_second=1.0, bytes_per_second=1.0, calls_per_second=1.0),
    )
    return make_plan()


def test_forecast_memory_uses_longest_rows_and_time_mean_rows(plan: SweepPlan) -> None:
    lora = forecast(plan).tasks["mail"]["lora"]
    assert lora.peak_bytes == 1350
    assert lora.seconds_per_step == 8 * 10
    passes = plan.tasks["mail"].plan_of("lora").passes
    assert lora.seconds == STEPS * 80 + len(plan.rungs) * VALIDATION_ROWS * 10 / passes


def test_forecast_lane_seconds_count_trials_retrainings_and_scorings(plan: SweepPlan) -> None:
    """Two methods are retrained with three seeds; a third, and the best one's defaults, are scored on two test rows."""
    sweep_forecast = forecast(plan)
    lora = sweep_forecast.tasks["mail"]["lora"]
    assert lora.seconds
    assert lora.final
    row = 10 / plan.tasks["mail"].plan_of("lora").passes
    assert lora.final.scoring == 2 * row
    assert lora.final.retraining == STEPS * 80 + (VALIDATION_ROWS + 2) * row
    assert sweep_forecast.final_seconds is not None
    assert sweep_forecast.final_seconds == pytest.approx(2 * 3 * lora.final.retraining + 2 * lora.final.scoring)
    assert sweep_forecast.lane_seconds == pytest.approx(10 * lora.seconds + sweep_forecast.final_seconds)
    with console.console.capture() as captured:
        print_plan(plan, Path("mail.yaml"), sweep_forecast)
    words = " ".join(captured.get().split())
    assert f"{duration(sweep_forecast.final_seconds)} of it in the final" in words
    (expected,) = plan_json(plan)["expected"]
    assert expected.startswith("10 trials over 3 methods: expect a set of ")
    assert f"expect {expected}" in words
    once = plan.config.model_copy(update={"selection": plan.config.selection.model_copy(update={"seeds": 1})})
    assert forecast(replace(plan, config=once)).final_seconds == pytest.approx(4 * lora.final.scoring)


@pytest.mark.parametrize(("metric", "at_rungs", "in_final"), [(["exact_match"], 1, 1), (["perplexity", "bleu"], 0, 1)])
def test_forecast_of_the_final_counts_generation_by_any_metric(
    plan: SweepPlan, metric: list[str], at_rungs: int, in_final: int
) -> None:
    scored, generated = (make_plan({"mail": {**CAUSAL, "metric": names}}) for names in (["perplexity"], metric))
    without, with_text = (forecast(p).tasks["mail"]["lora"] for p in (scored, generated))
    assert without.final
    assert with_text.final
    assert without.seconds
    assert with_text.seconds
    row = (10 + Estimates.lengths.targets) / 2.0  # a prompt is read, and as many tokens written as a completion has
    rungs = len(plan.rungs)
    assert with_text.seconds - without.seconds == pytest.approx(at_rungs * rungs * VALIDATION_ROWS * row)
    assert with_text.final.scoring - without.final.scoring == pytest.approx(in_final * 2 * row)
    rows = at_rungs * VALIDATION_ROWS + in_final * 2
    assert with_text.final.retraining - without.final.retraining == pytest.approx(rows * row)
    final = forecast(scored).final_seconds
    assert final == pytest.approx(2 * 3 * without.final.retraining + 3 * without.final.scoring), "the untuned backbone"


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
    lora = {"peak_memory_bytes": 1350, "seconds_per_step": 80}
    assert rows == {"lora": lora, "prefix": None, "hard_prompt": None}
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


def test_forecast_counts_only_validation_rows_that_exist(plan: SweepPlan) -> None:
    few = make_plan(rows=20)
    passes = few.tasks["mail"].plan_of("lora").passes
    seconds = forecast(few).tasks["mail"]["lora"].seconds
    assert seconds == STEPS * 80 + len(few.rungs) * 20 * 10 / passes


def test_forecast_counts_generated_tokens_where_metric_needs_them(plan: SweepPlan) -> None:
    scored, generated = (make_plan({"mail": {**CAUSAL, "metric": m}}) for m in ("perplexity", "exact_match"))
    without, with_text = (forecast(p).tasks["mail"]["lora"].seconds for p in (scored, generated))
    assert without is not None
    assert with_text is not None
    rows, tokens, passes = VALIDATION_ROWS * len(plan.rungs), Estimates.lengths.targets, 2.0
    assert with_text - without == pytest.approx(rows * (Estimates.lengths.mean + tokens) / passes)


def test_forecast_time_is_unknown_where_lanes_run_elsewhere(plan: SweepPlan) -> None:
    elsewhere = replace(plan, device=LaneDevice(kind="cuda", here=False))
    sweep_forecast = forecast(elsewhere)
    assert sweep_forecast.lane_seconds is None
    assert sweep_forecast.tasks["mail"]["lora"].seconds_per_step is None
    with console.console.capture() as captured:
        print_plan(elsewhere, Path("mail.yaml"), sweep_forecast)
    assert "time      unknown until lanes have measured it" in captured.get()
    assert "gpu       of unknown memory" in captured.get()


def test_forecast_is_measured_on_the_device_of_lanes(plan: SweepPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[tuple[torch.device, torch.dtype]] = []

    def measure(device: torch.device, dtype: torch.dtype) -> DeviceThroughput:
        measured.append((device, dtype))
        return DeviceThroughput(flops_per_second=1.0, bytes_per_second=1.0, calls_per_second=1.0)

    monkeypatch.setattr(DeviceThroughput, "measure", measure)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    forecast(plan)
    forecast(replace(plan, device=LaneDevice(kind="cuda", gpus=(Gpu("L4", 24e9, True),), here=True)))
    assert [device.type for device, _ in measured] == ["cpu", "cuda"]
    assert measured[1][1] == torch.bfloat16


def test_forecast_of_a_gpu_shows_how_much_of_a_batch_fits(plan: SweepPlan) -> None:
    task = plan.tasks["mail"]
    assert task.estimates
    gpu = Gpu("L4", 24e9, bfloat16=True)
    device = LaneDevice(kind="cuda", gpus=(gpu,), source="lanes.gpu_memory", here=False)
    on_gpu = replace(
        plan,
        device=device,
        gpu=GpuBudget(gpu, backbone_bytes=6e9, room_bytes=16e9),
        tasks={"mail": replace(task, room=GpuRoom(task.estimates, 16e9))},
    )
    sweep_forecast = forecast(on_gpu)
    fields = sweep_forecast.fields("mail", "lora")
    assert fields
    assert fields["scoring_memory_bytes"] == 1.0
    with console.console.capture() as captured:
        print_plan(on_gpu, Path("mail.yaml"), sweep_forecast)
    shown = captured.get()
    words = " ".join(shown.split())
    assert "gpu L4, 24.0 GB (lanes.gpu_memory) · backbone 6.0 GB · 16.0 GB left for trials" in words
    row = next(line for line in shown.splitlines() if line.startswith("lora"))
    assert row.split()[-4:] == ["?", "8", "of", "8"]
    assert "rows of 20 tokens, the longest" in words
