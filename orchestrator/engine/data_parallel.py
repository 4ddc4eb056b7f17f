"""Data parallelism within a lane: each worker trains on its shard of the batch, and the gradients are summed.

A shard's loss is weighted by the labels in it, so that the sum of the gradients is what one worker would get from the
whole batch. All trials of a pack go into one all-reduce, in the pack's order. Everything after it (the finite check,
clipping, the optimizer) computes the same on every rank without further communication.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import accumulate
from typing import Protocol

import torch
from torch import Tensor, nn

from orchestrator.engine.micro_batches import split_micro_batches
from orchestrator.engine.random_stream import RandomStream
from orchestrator.engine.ranks import OtherWorkerError, Ranks
from orchestrator.tasks import TaskType

Outcome = Tensor | Exception
"""The loss of a step whose gradients are in place, or the error that prevented it."""


class Trainable(Protocol):
    """What the all-reduce reads of a trial."""

    @property
    def parameters(self) -> Sequence[nn.Parameter]:
        """All trainable parameters, in the same order on all ranks."""
        ...


def shard(batch: dict[str, Tensor], ranks: Ranks, kind: TaskType) -> tuple[dict[str, Tensor], float]:
    """Return a rank's consecutive rows of a batch, and their weight in the batch's mean loss.

    Where a row's loss depends on the other rows, every rank has the whole batch, with an equal share of its weight.

    A rank without rows of its own gets another rank's at weight 0: its work is wasted, but all ranks make the same
    collective calls.

    Args:
        batch: batch as for :func:`split_micro_batches`, the same on all ranks.
        ranks: this worker's rank.
        kind: type of the task.
    """
    if not kind.is_divisible:
        return batch, 1 / ranks.size
    shards = list(split_micro_batches(batch, min(ranks.size, len(batch["input_ids"])), kind.loss_terms))
    if not shards:  # the batch has no labels, so its loss is NaN on every rank
        return batch, 1.0
    return shards[ranks.rank] if ranks.rank < len(shards) else (shards[0][0], 0.0)


def dropout_stream(seed: int, step: int, ranks: Ranks, trial_stream: RandomStream) -> RandomStream:
    """Return the random stream that a rank draws its dropout masks from in a step.

    Rank 0 uses the trial's stream, which is in its checkpoint. The other ranks start a new stream at every step, from
    the trial's seed, the step and the rank: ranks do not share masks, and a resumed trial draws the same ones without
    any stored state. A trial with dropout therefore depends on the number of workers in its lane.
    """
    if ranks.is_rank_zero:
        return trial_stream
    digest = hashlib.sha256(f"{seed}:{step}:{ranks.rank}".encode()).digest()
    number = int.from_bytes(digest[:8], "big") >> 1
    return RandomStream.from_seed(number, trial_stream.device)


def all_reduce_gradients(ranks: Ranks, runs: Sequence[Trainable], outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Sum losses and gradients over all ranks, those of all trials in one all-reduce, in float32.

    A gradient that is ``None`` on every rank stays ``None``: an optimizer applies weight decay to a gradient of 0.

    Args:
        ranks: this worker's rank.
        runs: trials of the pack, in the same order on all ranks.
        outcomes: outcome of each trial on this rank.

    Returns:
        Outcome of each trial on all ranks: the whole batch's loss, or an error if any rank had one.
    """
    if ranks.size == 1:
        return list(outcomes)
    buffers = [_flatten(run, outcome) for run, outcome in zip(runs, outcomes, strict=True)]
    flat = torch.cat([piece for buffer in buffers for piece in buffer])
    ranks.all_reduce(flat)
    sums = flat.split([_buffer_size(run) for run in runs])
    return [_unflatten(run, outcome, summed) for run, outcome, summed in zip(runs, outcomes, sums, strict=True)]


def _buffer_size(run: Trainable) -> int:
    """Return the size of a trial's buffer: loss, failures, a flag per parameter with a gradient, and the gradients."""
    return 2 + len(run.parameters) + sum(parameter.numel() for parameter in run.parameters)


def _flatten(run: Trainable, outcome: Outcome) -> list[Tensor]:
    parameters = run.parameters
    device = parameters[0].device if parameters else torch.device("cpu")
    if isinstance(outcome, Exception):
        failure = torch.zeros(_buffer_size(run), device=device)
        failure[1] = 1
        return [failure]
    has_gradient = [parameter.grad is not None for parameter in parameters]
    head = torch.tensor([0.0, 0.0, *has_gradient], device=device)
    head[0] = outcome.detach()
    gradients = (torch.zeros_like(p) if p.grad is None else p.grad for p in parameters)
    return [head, *(gradient.float().reshape(-1) for gradient in gradients)]


def _unflatten(run: Trainable, outcome: Outcome, summed: Tensor) -> Outcome:
    """Set the trial's gradients to views of the sum."""
    parameters = run.parameters
    failures, *gradient_counts = summed[1 : 2 + len(parameters)].tolist()
    if failures:
        other = OtherWorkerError("another worker of the lane could not train it")
        return outcome if isinstance(outcome, Exception) else other
    ends = list(accumulate((p.numel() for p in parameters), initial=2 + len(parameters)))
    for parameter, first, end, count in zip(parameters, ends, ends[1:], gradient_counts, strict=False):
        parameter.grad = summed[first:end].view_as(parameter).to(parameter.dtype) if count else None
    return summed[0]
