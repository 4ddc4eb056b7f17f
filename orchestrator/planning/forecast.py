"""What a sweep would take: memory and time of every method's default configuration, on a machine like this one."""

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
from orchestrator.tasks.tokens import integers, lengths

SAMPLE = 256


@dataclass(frozen=True, kw_only=True)
class MethodForecast:
    """A trial of a method in its default configuration.

    Args:
        cost: of a step with the longest rows that were seen.
        seconds_per_step: of an optimizer step, with rows of usual length.
        seconds: of a trial that is not stopped, its evaluations included.
    """

    cost: StepCost
    seconds_per_step: float
    seconds: float

    @property
    def peak_bytes(self) -> float:
        """The most memory while training alone, above the backbone."""
        return self.cost.peak

    def fields(self) -> dict[str, float]:
        """For machines."""
        return {"peak_memory_bytes": self.peak_bytes, "seconds_per_step": self.seconds_per_step}


@dataclass(frozen=True)
class SweepForecast:
    """What is estimated of a sweep.

    Args:
        tasks: by task and method; without methods of which nothing can be told.
        lane_bytes: the most memory of a lane above the backbone, with as many trials at once as it may be offered.
        lane_seconds: of all trials and retrainings together if none were stopped, in seconds of one lane; nothing
            where the budget is no number of trials.
    """

    tasks: Mapping[str, Mapping[str, MethodForecast]] = field(default_factory=dict)
    lane_bytes: float | None = None
    lane_seconds: float | None = None

    def fields(self, task: str, method: str) -> dict[str, float] | None:
        """Of a method, for machines."""
        found = self.tasks.get(task, {}).get(method)
        return found.fields() if found else None


NO_FORECAST = SweepForecast()


def forecast(plan: SweepPlan) -> SweepForecast:
    """Estimate a sweep, at the speed of this machine."""
    gpu = torch.cuda.is_available() and plan.config.lanes.gpus != 0
    device = torch.device("cuda" if gpu else "cpu")
    dtype = compute_dtype(plan.config.backbone.compute_dtype, device)
    throughput = DeviceThroughput.measured(device, dtype)
    tasks = {name: _task(plan, task, device, dtype, throughput) for name, task in plan.tasks.items()}
    every = [one for found in tasks.values() for one in found.values()]
    return SweepForecast(tasks, _lane_bytes(plan, every), _lane_seconds(plan, every))


@dataclass(frozen=True)
class _Rows:
    """How long rows are: the longest, usually, and how much of them a language model learns."""

    longest: int
    usual: float
    targets: int


def _task(
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
        sources=tuple(one.data.name for one in sources),
        source_labels=tuple(len(one.data.labels) for one in sources),
        cuda=device.type == "cuda",
    )
    rows = _rows(plan, task)
    found = {one.method: _method(plan, one, model, rows, throughput) for one in task.methods if one.available}
    return {name: one for name, one in found.items() if one is not None}


def _rows(plan: SweepPlan, task: TaskPlan) -> _Rows:
    """Of the first training rows."""
    table = task.type.tokenize(
        task.data.splits["train"].slice(0, SAMPLE), plan.tokenizer, plan.config.training.max_length
    )
    tokens = lengths(table)
    prompts = integers(table, "prompt_length") if "prompt_length" in table.column_names else 0
    return _Rows(int(tokens.max()), float(tokens.mean()), max(1, round(float((tokens - prompts).mean()))))


def _method(
    plan: SweepPlan, one: MethodPlan, model: StepModel, rows: _Rows, throughput: DeviceThroughput
) -> MethodForecast | None:
    params: Mapping[str, Any] = one.space.default
    batch = int(params["batch_size"])
    cost = model.cost(one.method, params, Batch(rows=batch, tokens=rows.longest, targets=rows.targets))
    if cost is None:
        return None
    step = throughput.seconds(cost) * rows.usual / rows.longest
    training = plan.config.training
    evaluation = step / batch / one.passes * training.validation_rows
    seconds = step * training.max_steps + evaluation * len(plan.rungs)
    return MethodForecast(cost=cost, seconds_per_step=step, seconds=seconds)


def _lane_bytes(plan: SweepPlan, found: Sequence[MethodForecast]) -> float | None:
    """A lane may hold several trials of the method that needs most."""
    if not found:
        return None
    defaults = (one.space.default for task in plan.tasks.values() for one in task.methods)
    pack = plan.config.lanes.pack
    count = (
        default_pack_size(defaults, plan.config.training.max_length, plan.config.budget.trials)
        if pack == "auto"
        else pack
    )
    return peak_bytes([max((one.cost for one in found), key=lambda cost: cost.peak)] * count)


def _lane_seconds(plan: SweepPlan, found: Sequence[MethodForecast]) -> float | None:
    """Methods get equal parts of the trials here; which get more is decided by what they show."""
    if plan.config.budget.trials is None or not found:
        return None
    seeds = plan.config.selection.seeds
    trainings = plan.config.budget.trials + (plan.finalists * seeds if seeds > 1 else 0)
    return trainings * statistics.mean(one.seconds for one in found)
