"""The cost of a step in a deep backbone, from those in two shallow ones that lack some of its blocks.

A method attaches to most blocks alike. Where the backbone has a run of like blocks, one more of them adds the same
operators to each pass, at the same place. All sums then grow linearly with the run. So does the memory after each
operator, counted from the beginning or from the end of its pass, and the peak is the largest of these.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import groupby, takewhile
from typing import Any

from torch import nn

from methods.base.spec import Attached
from orchestrator.engine.checkpointed_blocks import block_names
from orchestrator.planning.estimates.step import Operators, StepCost

RUN_LENGTH = 3
"""Blocks of the run that are left in the shallower backbone."""
Runs = list[tuple[Hashable, int]]


def block_runs(attached: Attached) -> Runs:
    """Return the kinds of the blocks in their order, each with how many of it follow one another.

    Args:
        attached: a method that is attached to a backbone.
    """
    trained = {id(parameter) for parameter in attached.trainable().values()}
    kinds = [_kind(attached.module.get_submodule(name), trained) for name in block_names(attached.module)]
    return [(kind, len(list(blocks))) for kind, blocks in groupby(kinds)]


def shallow_depth(runs: Runs) -> int | None:
    """Return the blocks of the first of two shallow backbones; ``None`` if no run is so long that they save work.

    Args:
        runs: kinds of the blocks of the deep backbone.
    """
    blocks, longest = sum(count for _, count in runs), max((count for _, count in runs), default=0)
    depth = blocks - longest + RUN_LENGTH
    return depth if depth + (depth + 1) < blocks else None


def has_shorter_run(shallow: Runs, deep: Runs) -> bool:
    """Return whether blocks differ in nothing but the length of the longest run."""
    position = max(range(len(deep)), key=lambda run: deep[run][1])
    missing = sum(count for _, count in deep) - sum(count for _, count in shallow)
    return shallow == [(kind, count - missing * (run == position)) for run, (kind, count) in enumerate(deep)]


def deeper_cost(costs: Sequence[StepCost], passes: Sequence[Sequence[Operators]], blocks: int) -> StepCost | None:
    """Return the cost in a backbone with more blocks.

    Args:
        costs: costs in two backbones, the second with one block more.
        passes: operators of both passes in each.
        blocks: blocks that the deeper backbone has more than the first.

    Returns:
        The cost; ``None`` if the second backbone does not just have further operators in each pass.
    """
    peaks = [deeper_peak(first, second, blocks) for first, second in zip(*passes, strict=True)]
    if None in peaks:
        return None
    names = ("adapter_bytes", "optimizer_bytes", "activation_bytes", "flops", "bytes_moved", "calls")
    first, second = costs
    sums: dict[str, Any] = {name: _line(getattr(first, name), getattr(second, name), blocks) for name in names}
    peak = max(peak for peak in peaks if peak is not None)
    return StepCost(**sums, transient_bytes=peak - sums["activation_bytes"])


def deeper_peak(first: Operators, second: Operators, blocks: int) -> float | None:
    """Return the peak memory of a pass in a backbone with more blocks.

    Args:
        first: operators of the pass in a backbone.
        second: those in one with one block more.
        blocks: blocks that the deeper backbone has more than the first.

    Returns:
        The peak in bytes; ``None`` if the second pass does not just have further operators at one place.
    """
    from_start = _equal_levels(first, second)
    from_end = _equal_levels(first[::-1], second[::-1])
    earliest, latest = len(first) - len(from_end), len(from_start)
    if not first or earliest > latest:
        return None
    # The further operators may stand anywhere between these two, all along the run: here in the middle block, which has
    # like neighbours in both backbones.
    middle = (earliest + latest) // 2
    return max(_line(*levels, blocks) for levels in from_start[:middle] + from_end[: len(first) - middle])


def _equal_levels(first: Operators, second: Operators) -> list[tuple[int, int]]:
    """Return the memory after each operator that both passes begin with, in both."""
    both = takewhile(lambda pair: pair[0][:2] == pair[1][:2], zip(first, second, strict=False))
    return [(one[2], other[2]) for one, other in both]


def _line(first: float, second: float, blocks: int) -> float:
    return first + (second - first) * blocks


def _kind(block: nn.Module, trained: set[int]) -> Hashable:
    """Return what distinguishes a block from others: its modules and tensors, and which of these are trained."""
    modules = tuple(
        (name, type(module), getattr(module, "in_features", None), getattr(module, "out_features", None))
        for name, module in block.named_modules()
    )
    tensors = tuple(
        (name, tuple(tensor.shape), tensor.dtype, id(tensor) in trained)
        for name, tensor in [*block.named_parameters(), *block.named_buffers()]
    )
    return modules, tensors
