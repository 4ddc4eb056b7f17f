"""What a sweep would do, known before anything is trained or any worker started."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import methods
import search_spaces
from methods._base import MethodError, MethodSpec, Quantization
from orchestrator.backbone.shared import SharedBackbone
from orchestrator.backbone.skeleton import skeleton
from orchestrator.backbone.source import Source, resolve
from orchestrator.config import SweepConfig
from orchestrator.errors import InputError, Problem
from orchestrator.search.plans import StudyPlan
from orchestrator.search.rungs import rung_steps
from orchestrator.search.space import resolve as resolve_space
from orchestrator.tasks import TaskData, TaskType, read_task, task_type
from orchestrator.tracking.connection import check_uri
from search_spaces._base import SearchSpace

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class MethodPlan:
    """One method on one task.

    Args:
        method: its name.
        available: whether it can be attached here.
        reason: why not, one line.
        trainable: parameters of its default configuration.
        percent: of the backbone's.
        mergeable: whether the trained adapter can be folded into plain weights.
        category: its family.
        reference: its source.
    """

    method: str
    available: bool
    reason: str = ""
    trainable: int = 0
    percent: float = 0.0
    mergeable: bool = False
    category: str = ""
    reference: str = ""


@dataclass(frozen=True)
class TaskPlan:
    """One task with the methods that can train it."""

    data: TaskData
    type: TaskType
    methods: tuple[MethodPlan, ...]

    @property
    def available(self) -> tuple[str, ...]:
        """The methods that take part."""
        return tuple(plan.method for plan in self.methods if plan.available)


@dataclass(frozen=True)
class SweepPlan:
    """Everything that is decided before the first worker starts."""

    config: SweepConfig
    source: Source
    tasks: dict[str, TaskPlan]
    parameters: int
    rungs: tuple[int, ...]
    tokenizer: PreTrainedTokenizerBase

    @property
    def studies(self) -> list[StudyPlan]:
        """One per task and method that can train it."""
        return [
            StudyPlan(
                study=f"{name}/{method}",
                space=space_of(self.config, method),
                higher_is_better=task.type.higher_is_better(task.data.config.metric),
            )
            for method in self.config.methods
            for name, task in self.tasks.items()
            if method in task.available
        ]

    @property
    def needs_original(self) -> bool:
        """Whether a method trains backbone weights themselves."""
        return any(methods.get(name).needs_original for task in self.tasks.values() for name in task.available)


def make_plan(config: SweepConfig) -> SweepPlan:
    """Read the data, find the checkpoint, and probe every method.

    Raises:
        InputError: if data or checkpoint cannot be used, or no method can train a task.
    """
    if config.lanes.workers > 1:
        problem = Problem(
            "lanes.workers", f"is {config.lanes.workers}; lanes of several workers are not there yet, write 1"
        )
        raise InputError(config.name, [problem])
    check_uri(config.mlflow.tracking_uri, "mlflow.tracking_uri")
    data = {name: read_task(name, task, config.base, config.seed) for name, task in config.tasks.items()}
    source = resolve(config.backbone, config.base)
    positions, tokenizer = _readable(source)
    config = _fitting(config, positions)
    tasks, parameters = {}, 0
    for name, one in data.items():
        kind = task_type(one.config)
        probed, parameters = probe_methods(
            source,
            kind,
            config.methods,
            len(one.labels),
            config.backbone.quantization,
            lambda method: space_of(config, method).default,
        )
        tasks[name] = TaskPlan(one, kind, probed)
        if not tasks[name].available:
            problems = [Problem(f"methods.{plan.method}", plan.reason) for plan in probed]
            raise InputError(f"tasks.{name}", problems, "no method that was asked for can train this task")
    rungs = rung_steps(config.training.max_steps, config.search.first_rung, config.search.reduction_factor)
    return SweepPlan(config, source, tasks, parameters, rungs, tokenizer)


def _readable(source: Source) -> tuple[int | None, PreTrainedTokenizerBase]:
    """How many tokens the checkpoint takes, where that is limited, and its tokenizer.

    Raises:
        InputError: if transformers knows no such architecture, or there is no tokenizer.
    """
    try:
        return getattr(source.config(), "max_position_embeddings", None), source.tokenizer()
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError("backbone.model", [Problem(source.name, f"cannot be used: {reason}")]) from error


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


def probe_methods(
    source: Source,
    kind: TaskType,
    names: Iterable[str],
    labels: int,
    quantization: Quantization,
    defaults: Callable[[str], Mapping[str, Any]] = lambda name: search_spaces.get(name).default,
) -> tuple[tuple[MethodPlan, ...], int]:
    """Try methods on an architecture, without its weights.

    Args:
        source: the checkpoint.
        kind: the type of task.
        names: which methods.
        labels: classes of a classification task; 0 for a language model.
        quantization: of the backbone.
        defaults: the configuration to try a method with.

    Returns:
        The methods' plans, and the backbone's number of parameters.
    """
    bare = skeleton(source.config(), kind.auto_class, kind.name, source.name, labels, quantization)
    total = bare.parameters()
    return tuple(_probe(methods.get(name), bare, defaults(name), total) for name in names), total


def _probe(spec: MethodSpec[Any], bare: SharedBackbone, params: Mapping[str, Any], total: int) -> MethodPlan:
    plan = MethodPlan(
        method=spec.name,
        available=False,
        category=spec.category.value,
        reference=spec.reference,
        mergeable=spec.supports_merge,
    )
    if bare.context.task not in spec.tasks:
        return replace(plan, reason=f"cannot train {bare.context.task} tasks")
    try:
        attached = spec.attach(bare.view(0), spec.params_type.from_dict(params), bare.context)
    except MethodError as error:
        return replace(plan, reason=str(error))
    count = sum(parameter.numel() for parameter in attached.trainable().values())
    return replace(plan, available=True, trainable=count, percent=100 * count / total)


def space_of(config: SweepConfig, method: str) -> SearchSpace:
    """A method's search space with the configuration's overrides."""
    overrides = {
        name: override.model_dump(exclude_none=True) for name, override in config.search_space.get(method, {}).items()
    }
    return resolve_space(method, overrides)
