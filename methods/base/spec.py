"""The contract of a fine-tuning method: what it declares, what it may read, and what ``attach`` returns."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar, get_args

import torch
from torch import Tensor, nn

from methods.base.ranges import OF_TRAINING, RANGES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PeftTaskType = Literal["SEQ_CLS", "CAUSAL_LM", "TOKEN_CLS", "SEQ_2_SEQ_LM", "FEATURE_EXTRACTION"]
"""The task types of `peft`: what kind of model a method attaches to."""
TASK_TYPES_OF_0_1: Mapping[str, PeftTaskType] = {"classification": "SEQ_CLS", "causal-lm": "CAUSAL_LM"}
"""The names that release 0.1 had for them. Plugins of that release, which registered models carry, declare these."""
Quantization = Literal["nf4", "fp4", "int8", "none"]
Optimizer = Literal["adamw", "paged_adamw_8bit"]


class Category(StrEnum):
    """The families of methods, as surveys of the field divide them."""

    FULL = "full"
    SELECTIVE = "selective"
    ADDITIVE = "additive"
    SOFT_PROMPT = "soft prompt"
    REPARAMETERIZATION = "reparameterization"
    PROMPTING = "prompting"
    COMPOSITION = "composition"


class MethodError(ValueError):
    """A method cannot be attached to this backbone, or a parameter is out of range; the message is one line."""


@dataclass(frozen=True, kw_only=True)
class Hyperparameters:
    """Hyperparameters that every method has beside its own.

    Args:
        learning_rate: peak of the schedule.
        batch_size: rows per optimizer step.
        warmup: fraction of all steps, in 0..1, over which the rate rises linearly from 0.
        weight_decay: AdamW's decoupled decay.

    Raises:
        MethodError: if a value is outside its range.
    """

    learning_rate: float = 1e-3
    batch_size: int = 16
    warmup: float = 0.06
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        self.require_in_range(*sorted(OF_TRAINING))

    def require(self, holds: bool, field: str, range_text: str) -> None:
        """Raise the one-line error of a field that is out of range."""
        if not holds:
            raise MethodError(f"{field} is {getattr(self, field)!r}; it must be {range_text}")

    def require_in_range(self, *fields: str) -> None:
        """Raise the one-line error of the first field that is outside of its name's range.

        Args:
            fields: names in :data:`methods.base.ranges.RANGES`.
        """
        for name in fields:
            self.require(RANGES[name].holds(getattr(self, name)), name, RANGES[name].text)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; the inverse of :meth:`from_dict`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build the parameters from JSON values; a name that is left out has its default.

        Raises:
            MethodError: if a name is unknown or a value is out of range.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - names):
            raise MethodError(f"unknown parameter {unknown[0]!r}; known: {', '.join(sorted(names))}")
        return cls(**values)


ParamsT = TypeVar("ParamsT", bound=Hyperparameters)


@dataclass(frozen=True, kw_only=True)
class TaskText:
    """The words of a task, for the methods that read or write them.

    Args:
        tokenizer: the backbone's tokenizer.
        labels: names of the classes in the order of their ids; empty for a language model.
        max_length: maximum tokens per row.
        examples: function that returns training rows, at most the number that it is given, the same for every trial:
            pairs of token ids and class.
        blank: token ids of a language model's prompt in which every column's value is without content; empty where the
            task chooses among no texts, or has no such prompt.
    """

    tokenizer: PreTrainedTokenizerBase
    labels: tuple[str, ...]
    max_length: int
    examples: Callable[[int], Sequence[tuple[Sequence[int], int]]]
    blank: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a method may read about its task and backbone, beside the module that it attaches to.

    Args:
        task: name of the task's type, recorded in saved adapters; a method acts on ``task_type`` alone.
        task_type: what kind of model the module is.
        backbone: hub id or folder of the backbone, recorded in saved adapters.
        head: names of the modules that the checkpoint does not hold and every method trains
            (``("classifier",)`` on a BERT classifier; empty for a language model).
        original: function from a parameter's full name to its original, unquantized weight, for the methods that
            train backbone weights themselves; raises ``KeyError`` where the checkpoint is not at hand.
        quantization: format of the backbone's linear layers.
        layers: positions of the blocks that the method may sit in, counted from 0; ``None`` for all.
        text: the task's words; ``None`` where they are unknown, as when a saved adapter is loaded.
        sources: names of the tasks that the trial may learn from before its own.
        source_labels: number of classes of each source task; empty where it equals the task's own.
        fresh: ``True`` for a new adapter; ``False`` if a saved adapter's tensors are read into it right after, so that
            its initialization may be skipped.
        product_dtype: dtype in which a method may multiply its float32 parameters; gradients and updates are float32.
    """

    task: str
    task_type: PeftTaskType
    backbone: str
    head: tuple[str, ...]
    original: Callable[[str], Tensor]
    quantization: Quantization = "none"
    layers: frozenset[int] | None = None
    text: TaskText | None = None
    sources: tuple[str, ...] = ()
    source_labels: tuple[int, ...] = ()
    fresh: bool = True
    product_dtype: torch.dtype = torch.float32


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a learning rate, ``multiplier`` times the trial's."""

    parameters: tuple[nn.Parameter, ...]
    multiplier: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Attached:
    """A method on its view of the backbone, ready to train.

    Args:
        module: the model to call, with the bare model's keyword arguments and outputs.
        groups: everything that trains, each parameter once; empty for a method without training.
        active: the modules that are in training mode while training (dropout); all others,
            the frozen backbone among them, stay in evaluation mode.
        save: function that writes the adapter (safetensors and JSON) into an existing, empty folder.
        load: function that reads the tensors that ``save`` wrote back into the module.
        on_step: schedule of the method's own, called as ``on_step(step, total)`` after the ``step``-th optimizer step
            of ``total``, before the step's gradients are cleared.
        penalty: function that returns the term that training adds to the task's loss, a scalar of the adapter's
            parameters alone; the loss that the module computes itself from labels contains it already.
        merge: function that folds the adapter into plain weights and returns the module without it.
        state: function that returns what a paused trial must keep beside its trainable parameters, by name.
        load_state: function that restores what ``state`` returned.
        source_steps: function from a trial's total steps to the number of its first steps that train on the source
            tasks. Their batches have ``task_ids``, the position of each row's task in ``Context.sources``.
        optimizer: ``paged_adamw_8bit`` keeps its state in 8 bits, and in pages of host memory where the GPU's is
            short; without CUDA it is AdamW.
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
        """Switch the adapter's modules to training or evaluation mode; the frozen layers stay in evaluation mode."""
        for module in self.active:
            module.training = mode

    def trainable(self) -> dict[str, nn.Parameter]:
        """Return the parameters that train, by their names in the module; they are a trial's state for pausing."""
        return {name: p for name, p in self.module.named_parameters() if p.requires_grad}


@dataclass(frozen=True, kw_only=True)
class MethodSpec(Generic[ParamsT]):
    """The declaration of one fine-tuning method.

    Args:
        name: name in ``sweep.yaml``; the name of the method's file.
        category: family of the method.
        reference: paper or specification.
        params_type: class of the frozen, validated parameters.
        attach: function that puts the method onto a view; raises :class:`MethodError` where it cannot.
        tasks: the kinds of models it can be attached to. By default all: a dry run on the backbone's architecture
            finds out where a method works, so that only what a dry run cannot see has to be declared.
        starts_as_identity: whether a fresh attachment leaves the backbone's output unchanged.
        supports_merge: whether the trained adapter can be folded into plain weights.
        peft: whether saved adapters load with ``peft.PeftModel.from_pretrained``.
        needs_original: whether it trains backbone weights, so that the unquantized checkpoint must be at hand.
        original_for: parameter values that need the unquantized checkpoint as well, by parameter.
        trains: whether anything trains; a method that trains nothing is scored once.
        without_effect: function that returns the parameters that change nothing in a context; they are not searched.
    """

    name: str
    category: Category
    reference: str
    params_type: type[ParamsT]
    attach: Callable[[nn.Module, ParamsT, Context], Attached]
    tasks: frozenset[PeftTaskType] = frozenset(get_args(PeftTaskType))
    starts_as_identity: bool = True
    supports_merge: bool = False
    peft: bool = False
    needs_original: bool = False
    original_for: Mapping[str, frozenset[str]] = field(default_factory=dict)
    trains: bool = True
    without_effect: Callable[[Context], frozenset[str]] = lambda _: frozenset()

    def __post_init__(self) -> None:
        tasks = frozenset(TASK_TYPES_OF_0_1.get(task, task) for task in self.tasks)
        object.__setattr__(self, "tasks", tasks)
