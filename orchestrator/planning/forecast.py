"""Forecast the memory and time of a sweep, from every method's default configuration."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from orchestrator.engine.pack_sizes import default_pack_size
from orchestrator.planning.estimates import DeviceThroughput, StepCost, peak_bytes
from orchestrator.planning.gpu_fit import GpuFit
from orchestrator.planning.plan import MethodPlan, SweepPlan, TaskPlan


@dataclass(frozen=True, kw_only=True)
class FinalSeconds:
    """What a method takes in the final, by all metrics that are listed, in seconds.

    Args:
        retraining: time of a retraining, which is scored on the validation and on the test split.
        scoring: time of scoring a checkpoint on the test split.
    """

    retraining: float
    scoring: float


@dataclass(frozen=True, kw_only=True)
class MethodForecast:
    """The forecast of a trial with a method's default configuration.

    Args:
        cost: cost of a step with the longest rows, or of the part of it that fits the lanes' GPU at once.
        seconds_per_step: time of an optimizer step with rows of mean length, in seconds; ``None`` if it is unknown.
        seconds: time of a trial that is not stopped early, evaluations included, in seconds; ``None`` likewise.
        final: its time in the final; ``None`` likewise.
        fit: how it trains on the lanes' GPU; ``None`` without a GPU of known memory.
    """

    cost: StepCost
    seconds_per_step: float | None
    seconds: float | None
    final: FinalSeconds | None = None
    fit: GpuFit | None = None

    @property
    def peak_bytes(self) -> float:
        """Peak memory of the trial when it trains alone, above the backbone, in bytes."""
        return self.fit.peak_bytes if self.fit else self.cost.peak_bytes

    def fields(self) -> dict[str, Any]:
        """Return the fields of the JSON output of ``plan``."""
        fields = {"peak_memory_bytes": self.peak_bytes, "seconds_per_step": self.seconds_per_step}
        return {**fields, **self.fit.fields()} if self.fit else fields


@dataclass(frozen=True)
class SweepForecast:
    """The forecast of a sweep.

    Args:
        tasks: forecasts by task and method, without methods that cannot be estimated.
        lane_bytes: peak memory of a lane above the backbone with its largest pack, in bytes.
        lane_seconds: time of all trials and of the final in one lane if no trial is stopped early, in seconds; ``None``
            if the budget has no number of trials, or the speed of the lanes is unknown.
        final_seconds: the final's part of it, in seconds; ``None`` if the speed of the lanes is unknown.
        knows_speed: whether the speed of the lanes is known, because they run on this machine.
    """

    tasks: Mapping[str, Mapping[str, MethodForecast]] = field(default_factory=dict)
    lane_bytes: float | None = None
    lane_seconds: float | None = None
    final_seconds: float | None = None
    knows_speed: bool = True

    def fields(self, task: str, method: str) -> dict[str, Any] | None:
        """Return a method's fields of the JSON output of ``plan``; ``None`` if it has no forecast."""
        method_forecast = self.tasks.get(task, {}).get(method)
        return method_forecast.fields() if method_forecast else None


NO_FORECAST = SweepForecast()


def forecast(plan: SweepPlan) -> SweepForecast:
    """Forecast a sweep: its memory from the architecture, and its time from the measured throughput of this machine.

    If the lanes will have other devices than this machine, their time is unknown until they measure it.
    """
    throughput = None
    if plan.device.here:
        device = torch.device("cuda" if plan.device.has_gpu else "cpu")
        throughput = DeviceThroughput.measure(device, plan.device.dtype(plan.config.backbone.compute_dtype))
    tasks = {name: _task_forecasts(plan, task, throughput) for name, task in plan.tasks.items()}
    forecasts = [method_forecast for by_method in tasks.values() for method_forecast in by_method.values()]
    final = _final_seconds(plan, tasks)
    return SweepForecast(
        tasks,
        _lane_bytes(plan, forecasts),
        _lane_seconds(plan, forecasts, final),
        final,
        knows_speed=throughput is not None,
    )


def _task_forecasts(plan: SweepPlan, task: TaskPlan, throughput: DeviceThroughput | None) -> dict[str, MethodForecast]:
    forecasts = {
        method_plan.method: _method_forecast(plan, task, method_plan, throughput)
        for method_plan in task.methods
        if method_plan.available
    }
    return {method: method_forecast for method, method_forecast in forecasts.items() if method_forecast is not None}


def _method_forecast(
    plan: SweepPlan, task: TaskPlan, method_plan: MethodPlan, throughput: DeviceThroughput | None
) -> MethodForecast | None:
    """Return the forecast of a method; ``None`` where it trains nothing, or its step cannot be estimated."""
    params, estimates = method_plan.space.default, task.estimates
    if estimates is None or "batch_size" not in params:
        return None
    batch_size = int(params["batch_size"])
    fit = task.room.fit(method_plan.method, params) if task.room else None
    if fit:
        fit = replace(fit, scoring_bytes=estimates.scoring_bytes(method_plan.method, params) or 0.0)
    rows = fit.rows if fit else batch_size
    cost = fit.cost if fit else estimates.cost(method_plan.method, params, batch_size)
    if cost is None:
        return None
    if throughput is None:
        return MethodForecast(cost=cost, seconds_per_step=None, seconds=None, fit=fit)
    lengths, training = estimates.lengths, plan.config.training
    step_seconds = throughput.seconds(cost) * lengths.mean / lengths.longest * batch_size / rows
    forward_seconds = step_seconds / batch_size / method_plan.passes
    generation_seconds = forward_seconds + _generation_seconds(task, method_plan, throughput)  # first reads the prompt
    rung_row, test_row = (
        forward_seconds + (generation_seconds if kind.generates else 0.0) for kind in (task.type, task.type.for_test())
    )
    rung_seconds = rung_row * min(training.validation_rows, task.data.splits["validation"].num_rows)
    test_seconds = test_row * task.data.splits["test"].num_rows
    return MethodForecast(
        cost=cost,
        seconds_per_step=step_seconds,
        seconds=step_seconds * training.max_steps + rung_seconds * len(plan.rungs),
        final=FinalSeconds(
            retraining=step_seconds * training.max_steps + rung_seconds + test_seconds, scoring=test_seconds
        ),
        fit=fit,
    )


def _generation_seconds(task: TaskPlan, method_plan: MethodPlan, throughput: DeviceThroughput) -> float:
    """Return the time in which a completion of mean length is generated after its prompt; 0 if it cannot be told."""
    config, estimates = task.data.config, task.estimates
    if estimates is None or not task.type.for_test().generates:
        return 0.0
    rows = estimates.generation_rows(config.generated_tokens)
    cost = estimates.generation_cost(method_plan.method, method_plan.space.default, rows)
    if cost is None:
        return 0.0
    tokens = min(config.generated_tokens, estimates.lengths.targets)
    batch_seconds = throughput.seconds(cost) / method_plan.passes * tokens
    return batch_seconds / rows


def _lane_bytes(plan: SweepPlan, forecasts: Sequence[MethodForecast]) -> float | None:
    """Return the peak memory of a lane whose pack consists of trials of the largest method, in bytes.

    On a GPU of known memory a lane packs no more than it holds.
    """
    if not forecasts:
        return None
    largest = max((method_forecast.cost for method_forecast in forecasts), key=lambda cost: cost.peak_bytes)
    lane_bytes = peak_bytes([largest] * slots(plan))
    return min(lane_bytes, plan.gpu.room_bytes) if plan.gpu else lane_bytes


def slots(plan: SweepPlan) -> int:
    """Return how many trials a lane of the sweep may train at once."""
    if plan.config.lanes.pack != "auto":
        return plan.config.lanes.pack
    defaults = (method_plan.space.default for task in plan.tasks.values() for method_plan in task.methods)
    limits = plan.config.training.max_length, plan.config.budget.trials
    return default_pack_size(defaults, *limits, plan.device.has_gpu)


def _lane_seconds(plan: SweepPlan, forecasts: Sequence[MethodForecast], final_seconds: float | None) -> float | None:
    """Return the time of all trials and of the final in one lane, in seconds.

    Each method is taken to get an equal number of trials; the allocation decides by scores, which are unknown here.
    """
    times = [method_forecast.seconds for method_forecast in forecasts if method_forecast.seconds is not None]
    if plan.config.budget.trials is None or not times:
        return None
    return plan.config.budget.trials * statistics.mean(times) + (final_seconds or 0.0)


def _final_seconds(plan: SweepPlan, tasks: Mapping[str, Mapping[str, MethodForecast]]) -> float | None:
    """Return the time of the final in one lane, in seconds, if as many methods as may be retrained are.

    Beside the retrainings, the test split is scored by the eliminated methods' trials, the recommended method with its
    defaults, and the untuned backbone where there is no new head.
    """
    seeds, contenders = plan.config.selection.seeds, plan.config.selection.contenders
    total, is_known = 0.0, False
    for name, task in plan.tasks.items():
        times = [forecast.final for forecast in tasks[name].values() if forecast.final is not None]
        if not times:
            continue
        is_known = True
        available = len(task.available)
        retrained = min(contenders, available) if seeds > 1 else 0
        scored_once = available - retrained + 1 + (task.type.head_size(len(task.data.labels)) == 0)
        total += retrained * seeds * statistics.mean(time.retraining for time in times)
        total += scored_once * statistics.mean(time.scoring for time in times)
    return total if is_known else None
