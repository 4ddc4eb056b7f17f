"""What a lane needs to know before its first job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.config import Task, Training

if TYPE_CHECKING:
    from ray import ObjectRef


@dataclass(frozen=True)
class TaskSetup:
    """One task, as lanes see it.

    Args:
        config: what the sweep says of it.
        splits: tokenized rows by split, in Ray's object store; every lane of a node reads the same memory.
        labels: size of the classification head; 0 for language models.
        backbone: digest of the quantized backbone to attach.
        original: digest of the unquantized one, where a method trains its weights.
        pad: id of the padding token.
        names: of the classes, in the order of their ids.
    """

    config: Task
    splits: dict[str, ObjectRef[Any]]
    labels: int
    backbone: str
    original: str | None
    pad: int
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class LaneSetup:
    """Everything that is the same for all trials of a sweep.

    Args:
        storage: root of the storage; backbones are there.
        sweep: the sweep's folder in it.
        model: the backbone as the configuration names it.
        dtype: as the configuration says, ``auto`` for the hardware's choice.
        tasks: by name.
        training: limits.
        seed: of the data order, which all trials share.
        pack: how many trials a lane trains at once.
        measure_pack: whether so many share their steps only where the lane finds that it gains.
        plugins: name and text of every method from outside.
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
