"""The plan of a sweep: its tasks, the methods that work on its backbone, and their search spaces.

A plan is complete before any worker starts, so that ``peft-sweep plan`` can show it and mistakes cost no GPU time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from optuna.distributions import CategoricalDistribution

import methods
from methods.base.spec import MethodError, MethodSpec, TaskText
from orchestrator.backbone.examine import own_head
from orchestrator.backbone.source import Source, resolve
from orchestrator.common.errors import InputError, Problem
from orchestrator.config import SweepConfig
from orchestrator.config.constraints import Constraint
from orchestrator.config.overrides import as_mappings
from orchestrator.config.plugins import check_plugins
from orchestrator.planning.capability import MethodConstraints, MethodPlan, Probe, apply_constraints, plan_method
from orchestrator.planning.checkpoint import fit_max_length, read_checkpoint, require_tokenizer
from orchestrator.planning.gpu_budget import GpuBudget, gpu_budget
from orchestrator.planning.gpu_fit import GpuRoom
from orchestrator.planning.lane_device import LaneDevice, device_here
from orchestrator.planning.metric_trial import try_metrics
from orchestrator.planning.task_estimates import TaskEstimates
from orchestrator.search.grid import grid_problem
from orchestrator.search.plans import RelativeStepCost, StudyPlan
from orchestrator.search.rungs import rung_steps
from orchestrator.search.space import Override, unreached_ends
from orchestrator.search.space import resolve as resolve_space
from orchestrator.selection.evidence import t_quantile
from orchestrator.tasks import TASK_TYPES, TaskData, TaskType, read_task, task_type
from orchestrator.tasks.cut_rows import CutRows, cut_rows_of
from orchestrator.tasks.rendering import render_task
from orchestrator.tasks.token_types import with_token_types
from orchestrator.tasks.tokens import example_rows
from orchestrator.tracking.connection import check_uri
from orchestrator.warm_start import Prior, TaskMetadata, prior_of, task_metadata
from search_spaces._base import SearchSpace

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["MethodPlan", "SweepPlan", "TaskPlan", "make_plan"]

TaskTextFactory = Callable[[TaskData, TaskType], TaskText]


@dataclass(frozen=True)
class TaskPlan:
    """One task with the methods that can train it."""

    data: TaskData
    type: TaskType
    methods: tuple[MethodPlan, ...]
    limits: Mapping[str, MethodConstraints] = field(default_factory=dict)
    """Limits on the configurations of each method that has any, by method."""
    estimates: TaskEstimates | None = None
    """Estimates of the task's steps on the lanes' device."""
    room: GpuRoom | None = None
    """What the lanes' GPU has for its trials; ``None`` if lanes have no GPU, or one of unknown memory."""

    @property
    def available(self) -> tuple[str, ...]:
        """Names of the methods that can train the task."""
        return tuple(plan.method for plan in self.methods if plan.available)

    def plan_of(self, method: str) -> MethodPlan:
        """Return the plan of a method."""
        return next(plan for plan in self.methods if plan.method == method)


@dataclass(frozen=True)
class SweepPlan:
    """The plan of a sweep.

    Args:
        config: the configuration; its maximum length is lowered to what the backbone takes.
        source: the backbone's checkpoint.
        tasks: plans of the tasks, by name.
        parameters: number of the backbone's parameters.
        rungs: optimizer steps at which trials are compared, in ascending order; the last one is the full training.
        tokenizer: the checkpoint's tokenizer.
        architecture: the checkpoint's model type, such as ``bert``.
        prior: trials of earlier sweeps with which the search starts.
        device: device of the lanes.
        gpu: what the backbones leave of its memory; ``None`` if lanes have no GPU, or one of unknown memory.
        notes: what is worth telling of the backbone, the searched ranges and the seeds.
    """

    config: SweepConfig
    source: Source
    tasks: dict[str, TaskPlan]
    parameters: int
    rungs: tuple[int, ...]
    tokenizer: PreTrainedTokenizerBase
    architecture: str = ""
    prior: Prior = field(default_factory=Prior)
    device: LaneDevice = field(default_factory=LaneDevice)
    gpu: GpuBudget | None = None
    notes: tuple[str, ...] = ()

    @property
    def studies(self) -> list[StudyPlan]:
        """Plans of the Optuna studies: one for each task and each method that can train it."""
        return [
            StudyPlan(
                study=f"{name}/{method}",
                space=task.plan_of(method).space,
                higher_is_better=task.type.optimized.higher_is_better,
                metric=task.type.optimized.name,
                step_cost=RelativeStepCost(task.plan_of(method).passes),
                prior=self.prior.of(f"{name}/{method}"),
                constraints=task.limits.get(method),
            )
            for method in self.config.methods
            for name, task in self.tasks.items()
            if method in task.available
        ]

    @property
    def task_metadata(self) -> dict[str, TaskMetadata]:
        """Metadata of each task and its backbone, by which it is compared with tasks of other sweeps."""
        backbone = self.config, self.source, self.architecture, self.parameters
        return {name: task_metadata(task.data, task.type, *backbone) for name, task in self.tasks.items()}

    def cut_rows(self, task: TaskPlan) -> dict[str, CutRows]:
        """Return what each split of a task loses because of rows that are too long."""
        return cut_rows_of(task.data, task.type, self.tokenizer, self.config.training.max_length)

    @property
    def finalists(self) -> int:
        """Largest number of methods that the final retrains, all tasks together."""
        limit = self.config.selection.contenders
        return sum(min(limit, len(task.available)) for task in self.tasks.values())

    @property
    def needs_original(self) -> bool:
        """Whether any method trains copies of the original backbone weights, or may start from them."""
        return any(
            _needs_original(methods.get(method_plan.method), method_plan.space)
            for task in self.tasks.values()
            for method_plan in task.methods
            if method_plan.available
        )


@dataclass(frozen=True)
class _PlannedTask:
    """A task's plan, the number of the backbone's parameters, and overrides that cannot work."""

    plan: TaskPlan
    parameters: int
    problems: list[Problem]


def _needs_original(spec: MethodSpec[Any], space: SearchSpace) -> bool:
    searched = {
        name: set(distribution.choices) if isinstance(distribution, CategoricalDistribution) else {space.default[name]}
        for name, distribution in space.distributions.items()
    }
    return spec.needs_original or any(searched.get(name, set()) & values for name, values in spec.original_for.items())


def make_plan(
    config: SweepConfig,
    prior: Prior | None = None,
    device: LaneDevice | None = None,
    data: Mapping[str, TaskData] | None = None,
) -> SweepPlan:
    """Make the plan of a sweep: read the data, find the checkpoint, probe every method, and find earlier sweeps.

    Args:
        config: the configuration.
        prior: recorded prior of a resumed sweep; computed from earlier sweeps if left out.
        device: device of the lanes; that of this machine if left out.
        data: rows of the tasks, where they have been read already.

    Raises:
        InputError: if data or checkpoint cannot be used, the backbone does not fit the lanes' GPU, no method can train
            a task, or an earlier sweep is missing.
        SweepError: if the tracking server is needed to find an earlier sweep and cannot be reached.
    """
    check_uri(config.mlflow.tracking_uri, "mlflow.tracking_uri")
    check_plugins(config)
    overrides = {method: as_mappings(config.search_space.get(method, {})) for method in config.methods}
    spaces = {method: resolve_space(method, overrides[method]) for method in config.methods}
    if data is None:
        data = {name: read_task(name, task, config.base, config.seed) for name, task in config.tasks.items()}
    source = resolve(config.backbone, config.base)
    architecture, tokenizer, row_limit = read_checkpoint(source)
    require_tokenizer(config, source, tokenizer)
    data = {name: render_task(each, TASK_TYPES[each.config.type], tokenizer) for name, each in data.items()}
    data = {name: with_token_types(each, architecture, tokenizer) for name, each in data.items()}
    try_metrics(config.name, data)
    config = fit_max_length(config, row_limit)
    task_text = _task_text_factory(config, tokenizer)
    device = device or device_here(config.lanes)
    estimates = {
        name: TaskEstimates(config, architecture, rows, _type(rows), _sources(data, name), tokenizer, device)
        for name, rows in data.items()
    }
    gpu = gpu_budget(config, device, list(estimates.values()))
    rooms = {name: GpuRoom(estimates[name], gpu.room_bytes) for name in data} if gpu else {}
    planned = {
        name: _plan_task(config, estimates[name], task_text(data[name], estimates[name].kind), spaces, rooms.get(name))
        for name in data
    }
    if problems := list(dict.fromkeys(problem for task in planned.values() for problem in task.problems)):
        raise InputError(config.name, problems)
    for name, task in planned.items():
        if not task.plan.available:
            reasons = [Problem(f"methods.{plan.method}", plan.reason) for plan in task.plan.methods]
            raise InputError(f"tasks.{name}", reasons, "none of the methods can train this task; add one that can")
    tasks = {name: task.plan for name, task in planned.items()}
    parameters = next(iter(reversed(planned.values()))).parameters
    rungs = rung_steps(config.training.max_steps, config.search.first_rung, config.search.reduction_factor)
    plan = SweepPlan(
        config,
        source,
        tasks,
        parameters,
        rungs,
        tokenizer,
        architecture.model_type,
        device=device,
        gpu=gpu,
        notes=(*_backbone_notes(source, tasks.values()), *_search_notes(overrides), *_seed_notes(config)),
    )
    return replace(plan, prior=_find_prior(plan) if prior is None else prior)


def _find_prior(plan: SweepPlan) -> Prior:
    """Return the prior of earlier sweeps, if the configuration wants a warm start."""
    config = plan.config
    if not config.search.warm_start:
        return Prior()
    return prior_of(
        config.search.warm_start,
        plan.studies,
        plan.task_metadata,
        tracking_uri=config.mlflow.tracking_uri,
        storage=config.storage,
    )


def _backbone_notes(source: Source, tasks: Iterable[TaskPlan]) -> Iterator[str]:
    if (head := own_head(source.path)) and any(task.type.example_labels for task in tasks):
        yield f"the checkpoint is a fine-tuned {head}; its head is left out, and every trial trains a new one"


def _search_notes(overrides: Mapping[str, Mapping[str, Override]]) -> Iterator[str]:
    for method, of_method in overrides.items():
        yield from unreached_ends(method, of_method)


def _seed_notes(config: SweepConfig) -> Iterator[str]:
    if config.selection.seeds == 2:  # with 1, intervals cover rows alone, and say so
        widths = [t_quantile(0.975, seeds - 1) for seeds in (2, 3)]
        yield (
            "selection.seeds: 2 tells little of how much seeds differ: where one method is retrained, its 95 % interval"
            f" reaches up to {widths[0]:.1f} standard errors to each side, with 3 seeds {widths[1]:.1f}"
        )


def _type(data: TaskData) -> TaskType:
    return task_type(data.config, labels=data.labels, constants=data.constants)


def _sources(data: Mapping[str, TaskData], name: str) -> tuple[TaskData, ...]:
    """Return the source tasks of a task."""
    return tuple(data[source] for source in data[name].config.source_tasks)


def _plan_task(
    config: SweepConfig,
    estimates: TaskEstimates,
    text: TaskText,
    spaces: Mapping[str, SearchSpace],
    room: GpuRoom | None,
) -> _PlannedTask:
    task, kind = estimates.data, estimates.kind
    try:
        probe = Probe(
            estimates.architecture,
            kind,
            name=config.backbone.model,
            labels=kind.head_size(len(task.labels)),
            quantization=config.backbone.quantization,
            text=text,
            sources=tuple(source.name for source in estimates.sources),
            source_labels=tuple(kind.head_size(len(source.labels)) for source in estimates.sources),
        )
    except MethodError as error:
        raise InputError(f"tasks.{task.name}", [Problem("type", f"is {kind.name}; {error}")]) from error
    results = [
        plan_method(probe, method, space, config.search_space.get(method, {})) for method, space in spaces.items()
    ]
    problems = [problem for _, method_problems in results for problem in method_problems]
    limits = _limits(config, probe, [plan for plan, _ in results], room)
    plans = tuple(
        apply_constraints(plan, limits[plan.method]) if plan.method in limits else plan for plan, _ in results
    )
    problems += _grid_problems(config, plans) if config.search.sampler == "grid" else []
    return _PlannedTask(TaskPlan(task, kind, plans, limits, estimates, room), probe.parameters, problems)


def _limits(
    config: SweepConfig, probe: Probe, plans: Iterable[MethodPlan], room: GpuRoom | None
) -> dict[str, MethodConstraints]:
    """Return the limits of each method that has any: the sweep's constraints, and the memory of the lanes' GPU."""
    constraints = [Constraint.parse(text) for text in config.search.constraints]
    limits = {}
    for plan in plans:
        is_limited = room is not None and plan.available and not room.holds_all_of(plan.method, plan.space)
        if constraints or is_limited:
            limits[plan.method] = MethodConstraints(probe, plan.method, constraints, room if is_limited else None)
    return limits


def _grid_problems(config: SweepConfig, plans: Iterable[MethodPlan]) -> Iterator[Problem]:
    """Return a problem for each search space that the grid sampler cannot enumerate."""
    for plan in plans:
        if plan.available and (problem := grid_problem(plan.space.distributions)):
            parameter, message = problem
            yield Problem(f"search_space.{plan.method}.{parameter}", message)


def _task_text_factory(config: SweepConfig, tokenizer: PreTrainedTokenizerBase) -> TaskTextFactory:
    """Return a function that makes a task's text for methods that read it, equal to what lanes make."""

    def task_text(data: TaskData, kind: TaskType) -> TaskText:
        def examples(count: int) -> list[tuple[list[int], int]]:
            rows = data.splits["train"]
            labelled = example_rows(rows, count, config.seed)
            selected = rows.take(pa.array([position for position, _ in labelled], pa.int64()))
            ids = kind.tokenize(selected, tokenizer, config.training.max_length)["input_ids"].to_pylist()
            return [(row, label) for row, (_, label) in zip(ids, labelled, strict=True)]

        length = config.training.max_length
        return TaskText(
            tokenizer=tokenizer,
            labels=kind.class_names,
            max_length=length,
            examples=examples,
            blank=kind.blank_prompt(data.config, tokenizer, length),
        )

    return task_text
