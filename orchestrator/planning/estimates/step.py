"""The cost of one training step, and the memory of one scored batch, counted by running them on the meta device."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from methods.base.spec import Attached, Optimizer
from orchestrator.backbone.shared import SharedBackbone
from orchestrator.engine.checkpointed_blocks import block_names, checkpoint_blocks
from orchestrator.planning.estimates.cost_counter import CostCounter
from orchestrator.planning.estimates.meta_kernels import MetaKernels, meta_results
from orchestrator.tasks import TaskType

# bitsandbytes' 8-bit optimizers: elements per scale, and elements of the smallest parameter whose moments have 8 bits
BLOCK_SIZE, MIN_8_BIT_SIZE = 256, 4096


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The shape of a training batch.

    Args:
        rows: rows per batch, or per micro-batch.
        tokens: tokens of the longest row, to which the others are padded.
        targets: tokens per row that count in the loss.
    """

    rows: int
    tokens: int
    targets: int = 1


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """The cost of one trial's training step, without the backbone that it shares.

    Args:
        adapter_bytes: bytes of the attached tensors, trained or not.
        optimizer_bytes: bytes of the optimizer's state, from the first step on.
        activation_bytes: bytes that the forward pass saves for the backward pass, with the loss and its logits.
        transient_bytes: bytes beyond these at the peak: gradients, the weight that is being dequantized, and
            results that nothing saves.
        flops: floating-point operations of matrix products and attention.
        bytes_moved: bytes that operators read and write.
        calls: operators that are called.
    """

    adapter_bytes: float
    optimizer_bytes: float
    activation_bytes: float
    transient_bytes: float
    flops: float
    bytes_moved: float
    calls: int

    @property
    def peak_bytes(self) -> float:
        """Peak memory of the trial when it trains alone, in bytes."""
        return self.adapter_bytes + self.optimizer_bytes + self.activation_bytes + self.transient_bytes


Operators = Sequence[tuple[Any, int, int]]
"""Operators in their order, each with the bytes that it created, and those that existed after it."""


def step_cost(
    attached: Attached,
    backbone: SharedBackbone,
    kind: TaskType,
    batch: Batch,
    *,
    cuda: bool,
    checkpointed: bool = False,
) -> tuple[StepCost, list[Operators]]:
    """Run a forward and a backward pass on the meta device, and count them.

    The optimizer's update is not run: it is fused, and allocates nothing.

    Args:
        attached: a method that is attached to a view of ``backbone``.
        backbone: backbone on the meta device.
        kind: the task type.
        batch: shape of the batch.
        cuda: whether to model the kernels of a GPU.
        checkpointed: whether blocks are computed again in the backward pass.

    Returns:
        The cost, and the operators of the two passes.
    """
    attached.module.to("meta")  # some methods compute initial values when they are attached
    counter, inputs, adapter_bytes = _prepare(attached, backbone, kind, batch)
    kernels = MetaKernels(counter.add_flops, cuda=cuda)
    if checkpointed:
        _checkpoint_blocks(attached.module, kernels, backbone.device)
    attached.train(True)
    with _on_meta_device(), torch.enable_grad(), kernels, counter:
        loss = kind.loss(attached.module, inputs)
        loss = loss if attached.penalty is None else loss + attached.penalty()
        activation_bytes, calls = counter.alive_bytes, counter.calls
        loss.backward()
    cost = StepCost(
        adapter_bytes=adapter_bytes,
        optimizer_bytes=sum(
            optimizer_bytes(parameter, attached.optimizer, cuda=cuda) for parameter in attached.trainable().values()
        ),
        activation_bytes=activation_bytes,
        transient_bytes=counter.peak_bytes - activation_bytes,
        flops=counter.flops,
        bytes_moved=counter.bytes_moved,
        calls=counter.calls,
    )
    return cost, [counter.operators[:calls], counter.operators[calls:]]


def scoring_operators(
    attached: Attached, backbone: SharedBackbone, kind: TaskType, batch: Batch, *, cuda: bool
) -> Operators:
    """Return the operators that score one batch; the memory of the backbone and the adapter does not count.

    Args:
        attached: a method that is attached to a view of ``backbone``.
        backbone: backbone on the meta device.
        kind: the task type.
        batch: shape of the batch.
        cuda: whether to model the kernels of a GPU.
    """
    attached.module.to("meta")
    counter, inputs, _ = _prepare(attached, backbone, kind, batch)
    attached.train(False)
    with _on_meta_device(), torch.no_grad(), MetaKernels(counter.add_flops, cuda=cuda), counter:
        kind.loss(attached.module, inputs)
    return counter.operators


def _prepare(
    attached: Attached, backbone: SharedBackbone, kind: TaskType, batch: Batch
) -> tuple[CostCounter, dict[str, Tensor], float]:
    """Return a counter of nothing yet, a batch on the meta device, and the bytes of the attached tensors."""
    counter = CostCounter(meta_results(batch.rows * batch.targets))
    counter.exclude(backbone.shared_tensors())
    adapter_bytes = counter.exclude(_tensors(attached))
    inputs = _inputs(batch, kind, int(backbone.model.config.num_labels or 0))
    counter.exclude(inputs.values())
    return counter, inputs, adapter_bytes


def optimizer_bytes(parameter: Tensor, optimizer: Optimizer, *, cuda: bool) -> float:
    """Return the bytes of an optimizer's state of a parameter: two moments and a step count.

    On a GPU, paged AdamW stores moments in 8 bits with a scale per block, but those of small parameters in 32 bits.

    Args:
        parameter: the parameter.
        optimizer: the method's optimizer.
        cuda: whether lanes have a GPU.
    """
    if optimizer == "paged_adamw_8bit" and cuda:
        return 2 * parameter.numel() * (1 + 4 / BLOCK_SIZE if parameter.numel() >= MIN_8_BIT_SIZE else 4)
    return 2 * parameter.nbytes + 4


def _checkpoint_blocks(module: nn.Module, kernels: MetaKernels, device: torch.device) -> None:
    """Checkpoint all blocks; torch leaves its function modes in the backward pass, so each run enters the kernels."""
    names = block_names(module)
    for name in names:
        block = module.get_submodule(name)
        block.forward = partial(_run_with, kernels, block.forward)
    checkpoint_blocks(module, names, device)


def _run_with(kernels: MetaKernels, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    with kernels:
        return forward(*args, **kwargs)


def _tensors(attached: Attached) -> Iterator[Tensor]:
    return itertools.chain(attached.module.parameters(), attached.module.buffers())


def _inputs(batch: Batch, kind: TaskType, labels: int) -> dict[str, Tensor]:
    def whole(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.int64, device="meta")

    ids, mask = whole(batch.rows, batch.tokens), whole(batch.rows, batch.tokens)
    return kind.dummy_batch(ids, mask, labels, batch.targets)


@contextmanager
def _on_meta_device() -> Iterator[None]:
    """Create new tensors on the meta device, and leave the caller's random state unchanged."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        yield
