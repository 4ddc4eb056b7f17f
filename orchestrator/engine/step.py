"""One optimizer step, or one evaluation, of several trials: in one packed pass, or each trial alone."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

import torch
from torch import Tensor

from orchestrator.engine.data_parallel import Outcome, all_reduce_gradients
from orchestrator.engine.gradient_norms import losses_and_norms
from orchestrator.engine.joint_pass import JointPasses
from orchestrator.engine.matmul import max_rows
from orchestrator.engine.out_of_memory import (
    drop_frames,
    is_out_of_memory,
    no_memory_to_free,
    release_memory,
)
from orchestrator.engine.packing import in_lockstep
from orchestrator.engine.ranks import ALONE, Ranks
from orchestrator.engine.shared_head import shared_heads
from orchestrator.engine.trial_run import TrialRun

log = logging.getLogger(__name__)


def train_step(
    runs: Sequence[TrialRun], ranks: Ranks = ALONE, joint: bool | None = None
) -> list[tuple[TrialRun, Exception]]:
    """Take one optimizer step with every trial, in one packed pass if there are several.

    A trial that raises, or whose loss is not finite, stays as it was before the step, and the others continue. If the
    shared part of a packed pass raises, or a trial runs out of memory in it, the step is repeated trial by trial. A
    trial that runs out of memory alone tries again with released memory, then at smaller step sizes.

    Args:
        runs: trials of the pack, in the same order on all workers of the lane.
        ranks: this worker's rank; each worker trains on its shard of every batch.
        joint: whether trials run the bodies of their models as one, see :mod:`orchestrator.engine.joint_pass`. By
            default they do on a GPU; on a processor, whose calls cost little, a trial's losses have the same bits
            whatever its neighbours are.

    Returns:
        The trials that failed, each with its error.
    """
    begin = time.perf_counter()
    outcomes = all_reduce_gradients(ranks, runs, _step_all(runs, joint))
    errors = _finish_all(runs, outcomes)
    failures = [(run, error) for run, error in zip(runs, errors, strict=True) if error]
    seconds_per_token = (time.perf_counter() - begin) / max(1, sum(run.tokens for run in runs))
    for run in runs:
        run.measurements["train_seconds"] += seconds_per_token * run.tokens
    return failures


def score_trials(runs: Sequence[TrialRun], joint: bool | None = None) -> None:
    """Evaluate trials on their jobs' splits, so that the next :meth:`TrialRun.evaluate` of each costs nothing.

    Trials whose evaluation batches are small enough to gain by it are evaluated in one packed pass, and so are those
    that generate text, since a step of generation has one token a row. Each trial has its own keys and values; at every
    step all wait at the same frozen layers, however long their texts are, and one that begins a new batch joins the
    others there with its prompts. An error is not raised here: the trial's own call of ``evaluate`` tries again, alone,
    and raises it.

    Args:
        runs: trials of a pack.
        joint: whether trials that do not generate run the bodies of their models as one, as in :func:`train_step`.
    """
    splits = [(run, run.job.split) for run in runs if run.job.split]
    small = [
        (run, split)
        for run, split in splits
        if can_be_packed(split, run.device)
        and (run.dataset.type_for(split).generates or run.evaluation_tokens(split) < max_rows(run.device))
    ]
    packed = small if len(small) > 1 else []
    if packed:
        models = [run.attached.module for run, _ in packed]
        draws = [run.draws_random_numbers for run, _ in packed]
        bodies = JointPasses([run for run, _ in packed]) if _is_joint(runs, joint) else None
        calls = [partial(run.evaluate, split, packed=True) for run, split in packed]
        with suppress(Exception), shared_heads(models):
            in_lockstep(calls, runs[0].device, draws, bodies)
    for run, split in splits:
        if (run, split) not in packed:
            with suppress(Exception):
                run.evaluate(split)


def can_be_packed(split: str, device: torch.device) -> bool:
    """Return whether trials may be scored together.

    On a GPU, rows of neighbours change the last bits of a product. The predictions of the test split are recorded and
    compared with those of the model alone, so they come from the trial alone.
    """
    return device.type == "cpu" or split != "test"


def _finish_all(runs: Sequence[TrialRun], outcomes: Sequence[Outcome]) -> list[Exception | None]:
    """Update the parameters of all trials; return the error of each that failed before or fails now."""
    losses = {run: outcome for run, outcome in zip(runs, outcomes, strict=True) if isinstance(outcome, Tensor)}
    whole = losses_and_norms(losses) if len(losses) > 1 else {run: (loss, None) for run, loss in losses.items()}
    errors = []
    for run, outcome in zip(runs, outcomes, strict=True):
        errors.append(outcome if isinstance(outcome, Exception) else _finish(run, *whole[run]))
    return errors


def _finish(run: TrialRun, loss: Tensor, norm: Tensor | None = None) -> Exception | None:
    try:
        run.finish_step(loss, norm)
    except Exception as error:
        return drop_frames(error)
    return None


def _step_all(runs: Sequence[TrialRun], joint: bool | None) -> list[Outcome]:
    """Run a packed pass for all trials that can be part of one, and the others alone."""
    packed = [run for run in runs if not run.checkpointed]
    outcomes = dict(zip(packed, _step_packed(packed, joint), strict=True)) if len(packed) > 1 else {}
    return [outcomes[run] if run in outcomes else _step_alone(run) for run in runs]


def _step_packed(runs: Sequence[TrialRun], joint: bool | None) -> list[Outcome]:
    outcomes = _run_packed_passes_or_fail(runs, _is_joint(runs, joint))
    # A trial may have run out of memory because of its neighbours, whose graphs are freed by now.
    repeated = [k for k, outcome in enumerate(outcomes) if isinstance(outcome, _PackError) or is_out_of_memory(outcome)]
    for k in repeated:
        runs[k].rewind()
    for k in repeated:
        outcomes[k] = _step_alone(runs[k])
    return outcomes


class _PackError(Exception):
    """A packed pass failed as a whole, by the fault of any trial or of none."""


def _is_joint(runs: Sequence[TrialRun], joint: bool | None) -> bool:
    return runs[0].device.type == "cuda" if joint is None else joint


def _run_packed_passes_or_fail(runs: Sequence[TrialRun], joint: bool) -> list[Outcome]:
    try:
        return _run_packed_passes(runs, joint)
    except Exception as error:
        log.warning("a packed step failed and is repeated trial by trial:\n%s", traceback.format_exc())
        if joint and not is_out_of_memory(error):
            for run in runs:  # in lockstep from now on, where an error of one trial is its own
                run.joins = False
        drop_frames(error)
    return [_PackError() for _ in runs]


def _run_packed_passes(runs: Sequence[TrialRun], joint: bool) -> list[Outcome]:
    """Run one forward and one backward pass for all trials, and more for those whose batch is in micro-batches."""
    outcomes: dict[int, Outcome] = {}
    pending = list(range(len(runs)))
    while pending:
        for k in pending:
            runs[k].prepare()
        draws = [runs[k].draws_random_numbers for k in pending]
        passes = [
            runs[k].forward if may_draw else partial(runs[k].forward, keep_random=False)
            for k, may_draw in zip(pending, draws, strict=True)
        ]
        bodies = JointPasses([runs[k] for k in pending]) if joint else None
        calls = in_lockstep(passes, runs[0].device, draws, bodies)
        losses = [call.result for call in calls if call.result is not None]
        if losses:
            torch.stack(losses).sum().backward()
        if bodies:
            bodies.write_gradients()
        for k, call in zip(pending, calls, strict=True):
            outcomes[k] = call.error or _add_loss(outcomes.get(k), call.result)
        pending = [k for k in pending if isinstance(outcomes[k], Tensor) and runs[k].has_micro_batches_left]
    return [outcomes[k] for k in range(len(runs))]


def _step_alone(run: TrialRun) -> Outcome:
    """Run a trial's step; if it runs out of memory, release memory, and then run it at ever smaller sizes.

    Only a size that did not fit alone, with all memory released, counts as too large.
    """
    outcome = _run_micro_batches(run)
    if is_out_of_memory(outcome):
        log.warning("trial %s ran out of memory at step %d: %s", run.job.trial, run.step + 1, outcome)
        release_memory(run.free_memory, run.device)
        outcome = _run_micro_batches(run)
    while is_out_of_memory(outcome) and run.shrink_step():
        release_memory(no_memory_to_free, run.device)
        outcome = _run_micro_batches(run)
    return outcome


def _run_micro_batches(run: TrialRun) -> Outcome:
    """Run the forward and backward passes of a step; a trial that fails is at the beginning of the step again."""
    try:
        return _sum_losses(run)
    except Exception as error:
        run.rewind()
        return drop_frames(error)


def _sum_losses(run: TrialRun) -> Tensor:
    total: Tensor | None = None
    while total is None or run.has_micro_batches_left:
        loss = run.forward()
        loss.backward()
        total = _add_loss(total, loss)
    return total


def _add_loss(total: Outcome | None, loss: Tensor | None) -> Tensor:
    assert loss is not None  # a packed call without an error has a result
    return loss.detach() + total if isinstance(total, Tensor) else loss.detach()
