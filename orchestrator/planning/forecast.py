"""Forecast the memory and time of a sweep, from every method's default configuration on a machine like this one."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from orchestrator.backbone.frozen import compute_dtype
from orchestrator.engine.pack_sizes import default_pack_size
from orchestrator.planning.capability.dummy_text import dummy_text
from orchestrator.planning.estimates import Batch, DeviceThroughput, StepCost, StepModel, peak_bytes
from orchestrator.planning.plan import MethodPlan, SweepPlan, TaskPlan
from orchestrator.tasks.tokens import lengths as row_lengths

SAMPLE_ROWS = 256


@dataclass(frozen=True, kw_only=True)
class MethodForecast:
    """The forecast of a trial with a method's default configuration.

    Args:
        cost: cost of a step with the longest rows of the sample.
        seconds_per_step: time of an optimizer step with rows of mean length, in seconds.
        seconds: time of a trial that is not stopped early, evaluations included, in seconds.
    """

    cost: StepCost
    seconds_per_step: float
    seconds: float

    @property
    def peak_bytes(self) -> float:
        """Peak memory of the trial when it trains alone, above the backbone, in bytes."""
        return self.cost.peak_bytes

    def fields(self) -> dict[str, float]:
        """Return the fields of the JSON output of ``plan``."""
        return {"peak_memory_bytes": self.peak_bytes, "seconds_per_step": self.seconds_per_step}


@dataclass(frozen=True)
class SweepForecast:
    """The forecast of a sweep.

    Args:
        tasks: forecasts by task and method, without methods that cannot be estimated.
        lane_bytes: peak memory of a lane above the backbone with its largest pack, in bytes.
        lane_seconds: time of all trials and retrainings in one lane if no trial is stopped early, in seconds; ``None``
            if the budget has no number of trials.
    """

    tasks: Mapping[str, Mapping[str, MethodForecast]] = field(default_factory=dict)
    lane_bytes: float | None = None
    lane_seconds: float | None = None

    def fields(self, task: str, method: str) -> dict[str, float] | None:
        """Return a method's fields of the JSON output of ``plan``; ``None`` if it has no forecast."""
        method_forecast = self.tasks.get(task, {}).get(method)
        return method_forecast.fields() if method_forecast else None


NO_FORECAST = SweepForecast()


def forecast(plan: SweepPlan) -> SweepForecast:
    """Forecast a sweep with the measured throughput of this machine."""
    gpu = torch.cuda.is_available() and plan.config.lanes.gpus != 0
    device = torch.device("cuda" if gpu else "cpu")
    dtype = compute_dtype(plan.config.backbone.compute_dtype, device)
    throughput = DeviceThroughput.measure(device, dtype)
    tasks = {name: _task_forecasts(plan, task, device, dtype, throughput) for name, task in plan.tasks.items()}
    forecasts = [method_forecast for by_method in tasks.values() for method_forecast in by_method.values()]
    return SweepForecast(tasks, _lane_bytes(plan, forecasts, gpu), _lane_seconds(plan, forecasts))


@dataclass(frozen=True)
class _RowLengths:
    """Tokens per row: the maximum, the mean, and the mean of those that count in a language model's loss."""

    longest: int
    mean: float
    targets: int


def _task_forecasts(
    plan: SweepPlan, task: TaskPlan, device: torch.device, dtype: torch.dtype, throughput: DeviceThroughput
) -> dict[str, MethodForecast]:
    config, labels = plan.source.config(), len(task.data.labels)
    sources = [plan.tasks[name] for name in task.data.config.source_tasks]
    model = StepModel(
        config,
        task.type,
        name=plan.config.backbone.model,
        labels=labels,
        quantization=plan.config.backbone.quantization,
        dtype=dtype,
        text=dummy_text(config, labels, plan.config.training.max_length),
        sources=tuple(source.data.name for source in sources),
        source_labels=tuple(len(source.data.labels) for source in sources),
        cuda=device.type == "cuda",
    )
    lengths = _row_lengths(plan, task)
    forecasts = {
        method_plan.method: _method_forecast(plan, method_plan, model, lengths, throughput)
        for method_plan in task.methods
        if method_plan.available
    }
    return {method: method_forecast for method, method_forecast in forecasts.items() if method_forecast is not None}


def _row_lengths(plan: SweepPlan, task: TaskPlan) -> _RowLengths:
    """Return the lengths of the first training rows."""
    table = task.type.tokenize(
        task.data.splits["train"].slice(0, SAMPLE_ROWS), plan.tokenizer, plan.config.training.max_length
    )
    tokens = row_lengths(table)
    return _RowLengths(
        int(tokens.max()), float(tokens.mean()), max(1, round(float(task.type.target_tokens(table).mean())))
    )


def _method_forecast(
    plan: SweepPlan,
    method_plan: MethodPlan,
    model: StepModel,
    lengths: _RowLengths,
    throughput: DeviceThroughput,
) -> MethodForecast | None:
    """Return the forecast of a method; ``None`` where its step cannot be estimated."""
    params: Mapping[str, Any] = method_plan.space.default
    batch_size = int(params["batch_size"])
    batch = Batch(rows=batch_size, tokens=lengths.longest, targets=lengths.targets)
    cost = model.cost(method_plan.method, params, batch)
    if cost is None:
        return None
    step_seconds = throughput.seconds(cost) * lengths.mean / lengths.longest
    training = plan.config.training
    evaluation_seconds = step_seconds / batch_size / method_plan.passes * training.validation_rows
    seconds = step_seconds * training.max_steps + evaluation_seconds * len(plan.rungs)
    return MethodForecast(cost=cost, seconds_per_step=step_seconds, seconds=seconds)


def _lane_bytes(plan: SweepPlan, forecasts: Sequence[MethodForecast], gpu: bool) -> float | None:
    """Return the peak memory of a lane whose pack consists of trials of the largest method, in bytes."""
    if not forecasts:
        return None
    defaults = (method_plan.space.default for task in plan.tasks.values() for method_plan in task.methods)
    pack = plan.config.lanes.pack
    count = (
        default_pack_size(defaults, plan.config.training.max_length, plan.config.budget.trials, gpu)
        if pack == "auto"
        else pack
    )
    largest = max((method_forecast.cost for method_forecast in forecasts), key=lambda cost: cost.peak_bytes)
    return peak_bytes([largest] * count)


def _lane_seconds(plan: SweepPlan, forecasts: Sequence[MethodForecast]) -> float | None:
    """Return the time of all trainings in one lane, in seconds.

    Each method is taken to get an equal number of trials; the allocation decides by scores, which are unknown here.
    """
    if plan.config.budget.trials is None or not forecasts:
        return None
    seeds = plan.config.selection.seeds
    trainings = plan.config.budget.trials + (plan.finalists * seeds if seeds > 1 else 0)
    return trainings * statistics.mean(method_forecast.seconds for method_forecast in forecasts)
