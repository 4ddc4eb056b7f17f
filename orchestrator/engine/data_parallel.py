"""One step of a lane of several workers: each trains on its rows of the batch, and the gradients are added up.

The loss of a rank's rows counts by the labels that it holds, so that the sum of the gradients is that of one worker
with the whole batch. All trials of a pack go into one all-reduce, in the pack's order; everything after it, from the
finite check and clipping to the optimizer, does the same on every rank and needs no further word.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import accumulate
from typing import Protocol

import torch
from torch import Tensor, nn

from orchestrator.engine.micro_batches import parts
from orchestrator.engine.random_stream import RandomStream
from orchestrator.engine.ranks import OtherWorkerError, Ranks

Outcome = Tensor | Exception
"""The loss of this rank's rows, their gradients being in place; or why there is none."""


class Training(Protocol):
    """What is asked of a trial in training."""

    @property
    def parameters(self) -> Sequence[nn.Parameter]:
        """Everything that trains, in the same order on all ranks."""
        ...


def share(batch: dict[str, Tensor], ranks: Ranks) -> tuple[dict[str, Tensor], float]:
    """A rank's consecutive rows of a batch, and their weight in the mean that is the batch's loss.

    Where there are fewer rows than ranks, who is left without takes another's, at no weight: all ranks then go the
    same way, and only the work is for nothing.

    Args:
        batch: as for :func:`parts`; the same on all ranks.
        ranks: this one's place.
    """
    bridge = list(parts(batch, min(ranks.size, len(batch["input_ids"]))))
    if not bridge:  # nothing is predicted: the loss is no number, on every rank
        return batch, 1.0
    return bridge[ranks.rank] if ranks.rank < len(bridge) else (bridge[0][0], 0.0)


def dropout_stream(seed: int, step: int, ranks: Ranks, own: RandomStream) -> RandomStream:
    """Where a rank draws its dropout from in a step.

    Rank 0 draws from the trial's own stream, which its checkpoint keeps. The others' begin anew at every step, from
    the trial's seed, the step and the rank, so that rows of different ranks are not masked alike, and a continued
    trial draws the same without any state. A trial with dropout so depends on how many workers its lane has.
    """
    if ranks.is_rank_zero:
        return own
    digest = hashlib.sha256(f"{seed}:{step}:{ranks.rank}".encode()).digest()
    number = int.from_bytes(digest[:8], "big") >> 1
    cpu = torch.Generator().manual_seed(number).get_state()
    on_gpu = own.cuda is not None
    return RandomStream(cpu, torch.Generator("cuda").manual_seed(number).get_state() if on_gpu else None)


def reduced(ranks: Ranks, runs: Sequence[Training], outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Add up losses and gradients over all ranks, those of all trials in one go.

    A gradient that no rank has stays away, since an optimizer treats it otherwise than one of 0. The sums are in
    float32.

    Args:
        ranks: this one's place.
        runs: the trials of the pack, in the same order on all ranks.
        outcomes: what became of each here.

    Returns:
        What became of each on all ranks: the whole batch's loss, or what kept one of them from it.
    """
    if ranks.size == 1:
        return list(outcomes)
    bridge = [_bridge(run, outcome) for run, outcome in zip(runs, outcomes, strict=True)]
    flat = torch.cat([piece for own in bridge for piece in own])
    ranks.all_reduce(flat)
    shares = flat.split([_size(run) for run in runs])
    return [_taken(run, own, whole) for run, own, whole in zip(runs, outcomes, shares, strict=True)]


def _size(run: Training) -> int:
    """Loss, failures, for each parameter how many ranks have its gradient, and the gradients."""
    return 2 + len(run.parameters) + sum(parameter.numel() for parameter in run.parameters)


def _bridge(run: Training, outcome: Outcome) -> list[Tensor]:
    parameters, device = run.parameters, _device(run)
    if isinstance(outcome, Exception):
        nothing = torch.zeros(_size(run), device=device)
        nothing[1] = 1
        return [nothing]
    there = [parameter.grad is not None for parameter in parameters]
    head = torch.tensor([0.0, 0.0, *there], device=device)
    head[0] = outcome.detach()
    gradients = (torch.zeros_like(p) if p.grad is None else p.grad for p in parameters)
    return [head, *(gradient.float().reshape(-1) for gradient in gradients)]


def _taken(run: Training, own: Outcome, whole: Tensor) -> Outcome:
    """Put the summed gradients in place, as views of the sum."""
    parameters = run.parameters
    failed, *there = whole[1 : 2 + len(parameters)].tolist()
    if failed:
        return own if isinstance(own, Exception) else OtherWorkerError("another worker of the lane could not train it")
    ends = list(accumulate((p.numel() for p in parameters), initial=2 + len(parameters)))
    for parameter, first, end, count in zip(parameters, ends, ends[1:], there, strict=False):
        parameter.grad = whole[first:end].view_as(parameter).to(parameter.dtype) if count else None
    return whole[0]


def _device(run: Training) -> torch.device:
    return run.parameters[0].device if run.parameters else torch.device("cpu")
