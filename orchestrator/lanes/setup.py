"""What a lane receives before its first job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator.common.retry import Retry
from orchestrator.config import GpuSettings, Task, Training
from orchestrator.lanes.step_watch import HangLimits

if TYPE_CHECKING:
    from ray import ObjectRef


@dataclass(frozen=True)
class TaskSetup:
    """A task, as lanes need it.

    Args:
        config: task as in the configuration.
        splits: tokenized rows by split, in Ray's object store; all lanes of a node read the same memory.
        labels: size of the classification head; 0 for language models.
        backbone: digest of the quantized backbone.
        original: digest of the unquantized backbone, if a method trains its weights.
        pad: id of the padding token.
        names: names of the classes, in the order of their ids.
        constants: numbers of the task that its type needs.
    """

    config: Task
    splits: dict[str, ObjectRef[Any]]
    labels: int
    backbone: str
    original: str | None
    pad: int
    names: tuple[str, ...] = ()
    constants: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class LaneSetup:
    """Everything that is the same for all trials of a sweep.

    Args:
        storage: root of the storage, which holds the backbones.
        sweep: the sweep's folder in it.
        model: name of the backbone in the configuration.
        dtype: dtype of frozen products, as in the configuration; ``auto`` for the hardware's choice.
        tasks: tasks by name.
        training: limits of a trial.
        seed: seed of the data order, which all trials share.
        pack: most trials that a lane trains at once.
        measure_pack: whether a lane packs only as many of them as its own timings show to gain (``pack: auto``).
        plugins: name and source text of every plugin method.
        retry: how long a lane waits for the storage.
        attention: implementation of attention, as in the configuration.
        gpu: how lanes compute on a GPU.
        token_limits: tokens that are expected to fit into a GPU at once, by method, where a whole batch does not.
        hangs: how long nothing may be heard of a trial at work.
    """

    storage: str
    sweep: str
    model: str
    dtype: str
    tasks: dict[str, TaskSetup]
    training: Training
    seed: int
    pack: int
    plugins: tuple[tuple[str, str], ...] = ()
    measure_pack: bool = False
    retry: Retry = field(default_factory=Retry)
    attention: str = "auto"
    gpu: GpuSettings = field(default_factory=GpuSettings)
    token_limits: Mapping[str, int] = field(default_factory=dict)
    hangs: HangLimits = field(default_factory=HangLimits)
