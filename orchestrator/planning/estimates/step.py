"""What one training step takes, counted by taking it on tensors that have sizes and no numbers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from methods.base.spec import Attached, Optimizer
from orchestrator.backbone.shared import SharedBackbone
from orchestrator.planning.estimates.cost_counter import CostCounter
from orchestrator.planning.estimates.meta_kernels import MetaKernels, meta_results
from orchestrator.tasks import TaskType

BLOCK, SMALLEST_IN_8_BITS = 256, 4096  # of bitsandbytes' optimizers


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The shape of a training batch.

    Args:
        rows: of it, or of the part of it that is trained at once.
        tokens: of its longest row, to which the others are padded.
        targets: tokens of a row that count in a language model's loss.
    """

    rows: int
    tokens: int
    targets: int = 1


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """What a training step of one trial takes, above the backbone that it is attached to; memory in bytes.

    Args:
        adapter: what was attached: what trains, and what it needs that does not.
        optimizer: its state, from the first step on.
        activations: what the forward pass leaves for the backward pass, the loss and its logits included.
        transient_bytes: what is there beyond these at the worst moment: gradients, the weight that is unpacked just now, and
            results that nothing keeps.
        flops: floating-point operations of its products.
        bytes_moved: bytes that are read and written by what is computed.
        calls: operators that are called.
    """

    adapter: float
    optimizer: float
    activations: float
    transient_bytes: float
    flops: float
    bytes_moved: float
    calls: int

    @property
    def peak(self) -> float:
        """The most that the trial needs at once, training alone."""
        return self.adapter + self.optimizer + self.activations + self.transient_bytes


def step_cost(attached: Attached, backbone: SharedBackbone, kind: TaskType, batch: Batch, *, cuda: bool) -> StepCost:
    """Pass a batch forward and backward, and keep account. The update itself is fused, and needs nothing for a moment.

    Args:
        attached: a method on a view of ``backbone``.
        backbone: without numbers.
        kind: of the task.
        batch: its shape.
        cuda: whether a GPU is to take it.
    """
    attached.module.to("meta")  # what a method has computed when it was attached
    counter = CostCounter(meta_results(batch.rows * batch.targets))
    counter.know(backbone.shared_tensors())
    adapter = counter.know(_tensors(attached))
    inputs = _inputs(batch, kind)
    counter.know(inputs.values())
    attached.train(True)
    with _quietly(), MetaKernels(counter.count, cuda=cuda), counter:
        loss = kind.loss(attached.module, inputs)
        loss = loss if attached.penalty is None else loss + attached.penalty()
        activations = counter.alive
        loss.backward()
    return StepCost(
        adapter=adapter,
        optimizer=sum(optimizer_bytes(one, attached.optimizer, cuda=cuda) for one in attached.trainable().values()),
        activations=activations,
        transient_bytes=counter.peak - activations,
        flops=counter.flops,
        bytes_moved=counter.bytes_moved,
        calls=counter.calls,
    )


def optimizer_bytes(parameter: Tensor, optimizer: Optimizer, *, cuda: bool) -> float:
    """What an optimizer keeps of a parameter: two moments, and a count of steps.

    The paged one keeps moments in 8 bits, with a scale for each block, but those of small parameters as they are.
    """
    if optimizer == "paged_adamw_8bit" and cuda:
        return 2 * parameter.numel() * (1 + 4 / BLOCK if parameter.numel() >= SMALLEST_IN_8_BITS else 4)
    return 2 * parameter.nbytes + 4


def _tensors(attached: Attached) -> Iterator[Tensor]:
    return itertools.chain(attached.module.parameters(), attached.module.buffers())


def _inputs(batch: Batch, kind: TaskType) -> dict[str, Tensor]:
    def whole(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.int64, device="meta")

    labels = whole(batch.rows) if kind.name == "classification" else whole(batch.rows, batch.tokens)
    ids, mask = whole(batch.rows, batch.tokens), whole(batch.rows, batch.tokens)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


@contextmanager
def _quietly() -> Iterator[None]:
    """Leave the random numbers of whoever asks as they are, and make what is made without numbers too."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"), torch.enable_grad():
        yield
