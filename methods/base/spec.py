"""What every fine-tuning method declares, and what it hands back once attached."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar

from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TaskType = Literal["classification", "causal-lm"]
Quantization = Literal["nf4", "fp4", "int8", "none"]
Optimizer = Literal["adamw", "paged_adamw_8bit"]


class Category(StrEnum):
    """The families of the field."""

    FULL = "full"
    SELECTIVE = "selective"
    ADDITIVE = "additive"
    SOFT_PROMPT = "soft prompt"
    REPARAMETERIZATION = "reparameterization"
    PROMPTING = "prompting"
    COMPOSITION = "composition"


class MethodError(ValueError):
    """A method cannot be attached here, or a parameter of it is out of range; one clear line."""


@dataclass(frozen=True, kw_only=True)
class Hyperparameters:
    """What every method searches over, beside its own parameters.

    Args:
        learning_rate: peak of the schedule.
        batch_size: rows per optimizer step.
        warmup: fraction of all steps over which the rate rises linearly from 0.
        weight_decay: AdamW's decoupled decay.

    Raises:
        MethodError: if a value is outside its range.
    """

    learning_rate: float = 1e-3
    batch_size: int = 16
    warmup: float = 0.06
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        self.require(self.learning_rate > 0, "learning_rate", "above 0")
        self.require(self.batch_size >= 1, "batch_size", "at least 1")
        self.require(0 <= self.warmup < 1, "warmup", "in 0..1, below 1")
        self.require(self.weight_decay >= 0, "weight_decay", "at least 0")

    def require(self, holds: bool, field: str, range_text: str) -> None:
        """Raise the one-line error of a field that is out of range."""
        if not holds:
            raise MethodError(f"{field} is {getattr(self, field)!r}; it must be {range_text}")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, the inverse of :meth:`from_dict`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from JSON values.

        Raises:
            MethodError: if a name is unknown or a value is out of range.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise MethodError(f"unknown parameter {unknown[0]!r}; known: {', '.join(sorted(known))}")
        return cls(**values)


ParamsT = TypeVar("ParamsT", bound=Hyperparameters)


@dataclass(frozen=True, kw_only=True)
class TaskText:
    """The words of a task, for the methods that read or write them.

    Args:
        tokenizer: of the backbone.
        labels: the classes' names in the order of their ids; empty for a language model.
        max_length: tokens of a row, at most.
        examples: gives up to so many training rows, the same for every trial: their token ids, and their class.
    """

    tokenizer: PreTrainedTokenizerBase
    labels: tuple[str, ...]
    max_length: int
    examples: Callable[[int], Sequence[tuple[Sequence[int], int]]]


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a method may know of its place beside the module it attaches to.

    Args:
        task: the task's type.
        backbone: hub id or folder of the backbone, recorded in saved adapters.
        head: names of the modules that the checkpoint does not hold and every method trains
            (``("classifier",)`` on a BERT classifier; empty for a language model).
        original: gives the original, unquantized weight for a parameter's full name, for the
            methods that train backbone weights themselves.
        quantization: how the backbone's linear layers are stored.
        layers: the blocks that the method may sit in, counted from 0; ``None`` for all.
        text: the task's words; ``None`` where nobody knows them, as when a saved adapter is loaded.
        sources: names of the tasks that the trial may learn from before its own.
        source_labels: how many classes each of those has; empty where they have as many as its own.
        fresh: the adapter begins here; ``False`` where a saved one's tensors are read into it right after.
    """

    task: TaskType
    backbone: str
    head: tuple[str, ...]
    original: Callable[[str], Tensor]
    quantization: Quantization = "none"
    layers: frozenset[int] | None = None
    text: TaskText | None = None
    sources: tuple[str, ...] = ()
    source_labels: tuple[int, ...] = ()
    fresh: bool = True


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a learning rate, ``multiplier`` times the trial's."""

    parameters: tuple[nn.Parameter, ...]
    multiplier: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Attached:
    """A method on its view of the backbone, ready to train.

    Args:
        module: called like the bare model, with the same keyword arguments and outputs.
        groups: everything that trains, each parameter once; empty for a method without training.
        active: the modules that are in training mode while training (dropout); all others,
            the frozen backbone among them, stay in evaluation mode.
        save: writes the adapter (safetensors and JSON) into an existing, empty folder.
        load: reads the tensors that ``save`` wrote back into the module.
        on_step: called as ``on_step(step, total)`` after the ``step``-th optimizer step of ``total``, while the
            step's gradients are still there; for schedules of the method's own.
        penalty: what training adds to the task's loss, a scalar of the adapter's parameters alone; already in the loss
            that the module computes itself when it is given labels.
        merge: folds the adapter into plain weights and returns the module without it.
        state: what a paused trial must keep beside its trainable parameters, by name.
        load_state: takes back what ``state`` gave.
        source_steps: of a trial of ``total`` steps, how many at its beginning train on the source tasks.
            Batches of those carry ``task_ids``, the position of the row's task in ``Context.sources``.
        optimizer: ``paged_adamw_8bit`` keeps its state in 8 bit and in host memory when the GPU's is short; where
            there is no CUDA it is AdamW.
    """

    module: nn.Module
    groups: tuple[ParameterGroup, ...]
    active: tuple[nn.Module, ...]
    save: Callable[[Path], None]
    load: Callable[[Path], None]
    on_step: Callable[[int, int], None] | None = None
    penalty: Callable[[], Tensor] | None = None
    merge: Callable[[], nn.Module] | None = None
    state: Callable[[], dict[str, Tensor]] = dict
    load_state: Callable[[dict[str, Tensor]], None] = lambda _: None
    source_steps: Callable[[int], int] = lambda _: 0
    optimizer: Optimizer = "adamw"

    def __post_init__(self) -> None:
        self.module.eval()

    def train(self, mode: bool) -> None:
        """Switch dropout and the like of the adapter alone; the frozen layers never leave evaluation mode."""
        for module in self.active:
            module.training = mode

    def trainable(self) -> dict[str, nn.Parameter]:
        """Everything that trains, by its name in the module; a trial's state for pausing."""
        return {name: p for name, p in self.module.named_parameters() if p.requires_grad}


@dataclass(frozen=True, kw_only=True)
class MethodSpec(Generic[ParamsT]):
    """One fine-tuning method, as the registry knows it.

    Args:
        name: as written in ``sweep.yaml``.
        category: its family.
        reference: paper or specification.
        params_type: its frozen, validated parameters.
        attach: puts the method onto a view; raises :class:`MethodError` where it cannot.
        tasks: the task types it can train.
        starts_as_identity: a fresh attachment leaves the backbone's output unchanged.
        supports_merge: the trained adapter can be folded into plain weights.
        peft: saved adapters load with ``peft.PeftModel.from_pretrained``.
        needs_original: trains backbone weights, so the unquantized checkpoint must be at hand.
        original_for: values of parameters for which it must be at hand as well, by parameter.
        trains: has something to train; a method without is scored once, as it is.
    """

    name: str
    category: Category
    reference: str
    params_type: type[ParamsT]
    attach: Callable[[nn.Module, ParamsT, Context], Attached]
    tasks: frozenset[TaskType] = frozenset({"classification", "causal-lm"})
    starts_as_identity: bool = True
    supports_merge: bool = False
    peft: bool = False
    needs_original: bool = False
    original_for: Mapping[str, frozenset[str]] = field(default_factory=dict)
    trains: bool = True
