"""What a sweep would do, known before anything is trained or any worker started."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from optuna.distributions import CategoricalDistribution

import methods
from methods.base.spec import MethodError, MethodSpec, TaskText
from orchestrator.backbone.source import Source, resolve
from orchestrator.common.errors import InputError, Problem, first_line
from orchestrator.config import SweepConfig
from orchestrator.config.constraints import Constraint
from orchestrator.config.overrides import as_mappings
from orchestrator.config.plugins import check_plugins
from orchestrator.planning.capability import MethodConstraints, MethodPlan, Probe, apply_constraints, plan_method
from orchestrator.search.grid import unlistable
from orchestrator.search.plans import StepCost, StudyPlan
from orchestrator.search.rungs import rung_steps
from orchestrator.search.space import resolve as resolve_space
from orchestrator.tasks import TaskData, TaskType, read_task, task_type
from orchestrator.tasks.tokens import shown
from orchestrator.tracking.connection import check_uri
from orchestrator.warm_start import Prior, TaskMetadata, prior_of, task_metadata
from search_spaces._base import SearchSpace

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

__all__ = ["MethodPlan", "SweepPlan", "TaskPlan", "make_plan"]

Words = Callable[[TaskData, TaskType], TaskText]


@dataclass(frozen=True)
class TaskPlan:
    """One task with the methods that can train it."""

    data: TaskData
    type: TaskType
    methods: tuple[MethodPlan, ...]
    limits: Mapping[str, MethodConstraints] = field(default_factory=dict)
    """What no configuration of a method may exceed, by method; empty without constraints."""

    @property
    def available(self) -> tuple[str, ...]:
        """The methods that take part."""
        return tuple(plan.method for plan in self.methods if plan.available)

    def plan_of(self, method: str) -> MethodPlan:
        """The plan of the method of that name."""
        return next(plan for plan in self.methods if plan.method == method)


@dataclass(frozen=True)
class SweepPlan:
    """Everything that is decided before the first worker starts."""

    config: SweepConfig
    source: Source
    tasks: dict[str, TaskPlan]
    parameters: int
    rungs: tuple[int, ...]
    tokenizer: PreTrainedTokenizerBase
    architecture: str = ""
    prior: Prior = field(default_factory=Prior)

    @property
    def studies(self) -> list[StudyPlan]:
        """One per task and method that can train it."""
        return [
            StudyPlan(
                study=f"{name}/{method}",
                space=task.plan_of(method).space,
                higher_is_better=task.type.metric(task.data.config.metric).higher_is_better,
                step_cost=StepCost(task.plan_of(method).passes),
                prior=self.prior.of(f"{name}/{method}"),
                constraints=task.limits.get(method),
            )
            for method in self.config.methods
            for name, task in self.tasks.items()
            if method in task.available
        ]

    @property
    def task_metadata(self) -> dict[str, TaskMetadata]:
        """What is known of each task and its backbone, to compare with those of other sweeps."""
        known = self.config, self.source, self.architecture, self.parameters
        return {name: task_metadata(task.data, task.type, *known) for name, task in self.tasks.items()}

    @property
    def finalists(self) -> int:
        """How many methods the final retrains at most, over all tasks."""
        most = self.config.selection.contenders
        return sum(min(most, len(task.available)) for task in self.tasks.values())

    @property
    def needs_original(self) -> bool:
        """Whether a method trains backbone weights themselves, or may start from them."""
        return any(
            _needs_original(methods.get(one.method), one.space)
            for task in self.tasks.values()
            for one in task.methods
            if one.available
        )


@dataclass(frozen=True)
class _Planned:
    """A task's plan, the backbone's parameters, and what cannot be of that which was asked for."""

    plan: TaskPlan
    parameters: int
    problems: list[Problem]


def _needs_original(spec: MethodSpec[Any], space: SearchSpace) -> bool:
    searched = {
        name: set(chosen.choices) if isinstance(chosen, CategoricalDistribution) else {space.default[name]}
        for name, chosen in space.distributions.items()
    }
    return spec.needs_original or any(searched.get(name, set()) & values for name, values in spec.original_for.items())


def make_plan(config: SweepConfig, prior: Prior | None = None) -> SweepPlan:
    """Read the data, find the checkpoint, probe every method, and look for earlier sweeps to begin with.

    Args:
        config: what to do.
        prior: what a sweep that is resumed took from earlier ones; it is not looked for again.

    Raises:
        InputError: if data or checkpoint cannot be used, no method can train a task, or an earlier sweep is not there.
        SweepError: if the tracking server is needed to find an earlier sweep and cannot be reached.
    """
    check_uri(config.mlflow.tracking_uri, "mlflow.tracking_uri")
    check_plugins(config)
    spaces = {
        method: resolve_space(method, as_mappings(config.search_space.get(method, {}))) for method in config.methods
    }
    data = {name: read_task(name, task, config.base, config.seed) for name, task in config.tasks.items()}
    source = resolve(config.backbone, config.base)
    architecture, tokenizer = _readable(source)
    config = _fitting(config, getattr(architecture, "max_position_embeddings", None))
    words = _words(config, tokenizer)
    planned = {name: _plan_task(config, architecture, data, name, words, spaces) for name in data}
    if problems := list(dict.fromkeys(problem for one in planned.values() for problem in one.problems)):
        raise InputError(config.name, problems)
    for name, one in planned.items():
        if not one.plan.available:
            reasons = [Problem(f"methods.{left.method}", left.reason) for left in one.plan.methods]
            raise InputError(f"tasks.{name}", reasons, "no method that was asked for can train this task")
    tasks = {name: one.plan for name, one in planned.items()}
    parameters = next(iter(reversed(planned.values()))).parameters
    rungs = rung_steps(config.training.max_steps, config.search.first_rung, config.search.reduction_factor)
    plan = SweepPlan(config, source, tasks, parameters, rungs, tokenizer, architecture.model_type)
    return replace(plan, prior=_prior(plan) if prior is None else prior)


def _prior(plan: SweepPlan) -> Prior:
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


def _readable(source: Source) -> tuple[PretrainedConfig, PreTrainedTokenizerBase]:
    """The architecture and the tokenizer of a checkpoint.

    Raises:
        InputError: if transformers knows no such architecture, or there is no tokenizer.
    """
    try:
        return source.config(), source.tokenizer()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError("backbone.model", [Problem(source.name, f"cannot be used: {first_line(error)}")]) from error


def _fitting(config: SweepConfig, positions: int | None) -> SweepConfig:
    """The configuration with rows no longer than the backbone takes; only a default is changed, never a wish.

    Raises:
        InputError: if longer rows were asked for.
    """
    training = config.training
    if positions is None or training.max_length <= positions:
        return config
    if "max_length" in training.model_fields_set:
        message = f"is {training.max_length}; the backbone takes {positions} tokens at most"
        raise InputError(config.name, [Problem("training.max_length", message)])
    return config.model_copy(update={"training": training.model_copy(update={"max_length": positions})})


def _plan_task(
    config: SweepConfig,
    architecture: PretrainedConfig,
    data: Mapping[str, TaskData],
    name: str,
    words: Words,
    spaces: Mapping[str, SearchSpace],
) -> _Planned:
    one = data[name]
    kind, sources = task_type(one.config), tuple(one.config.source_tasks)
    try:
        probe = Probe(
            architecture,
            kind,
            name=config.backbone.model,
            labels=len(one.labels),
            quantization=config.backbone.quantization,
            text=words(one, kind),
            sources=sources,
            source_labels=tuple(len(data[other].labels) for other in sources),
        )
    except MethodError as error:
        raise InputError(f"tasks.{name}", [Problem("type", f"is {kind.name}; {error}")]) from error
    tried = [
        plan_method(probe, method, space, config.search_space.get(method, {})) for method, space in spaces.items()
    ]
    problems = [problem for _, found in tried for problem in found]
    constraints = [Constraint.parse(text) for text in config.search.constraints]
    limits = {method: MethodConstraints(probe, method, constraints) for method in config.methods} if constraints else {}
    plans = tuple(apply_constraints(found, limits[found.method]) if limits else found for found, _ in tried)
    problems += _grid_problems(config, plans) if config.search.sampler == "grid" else []
    return _Planned(TaskPlan(one, kind, plans, limits), probe.parameters, problems)


def _grid_problems(config: SweepConfig, plans: Iterable[MethodPlan]) -> Iterator[Problem]:
    """Why spaces have no list of points."""
    for plan in plans:
        if plan.available and (found := unlistable(plan.space.distributions)):
            yield Problem(f"search_space.{plan.method}.{found[0]}", found[1])


def _words(config: SweepConfig, tokenizer: PreTrainedTokenizerBase) -> Words:
    """Gives the words of a task as lanes will."""

    def words(data: TaskData, kind: TaskType) -> TaskText:
        def examples(count: int) -> list[tuple[list[int], int]]:
            rows = data.splits["train"]
            chosen = shown(rows, count, config.seed)
            taken = rows.take(pa.array([position for position, _ in chosen], pa.int64()))
            ids = kind.tokenize(taken, tokenizer, config.training.max_length)["input_ids"].to_pylist()
            return [(row, label) for row, (_, label) in zip(ids, chosen, strict=True)]

        length = config.training.max_length
        return TaskText(tokenizer=tokenizer, labels=data.labels, max_length=length, examples=examples)

    return words
