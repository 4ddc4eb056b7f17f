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
from orchestrator.engine.matmul import CHUNK_ROWS
from orchestrator.engine.out_of_memory import is_out_of_memory
from orchestrator.engine.packing import in_lockstep
from orchestrator.engine.ranks import ALONE, Ranks
from orchestrator.engine.trial_run import TrialRun

log = logging.getLogger(__name__)


def train_step(runs: Sequence[TrialRun], ranks: Ranks = ALONE) -> list[tuple[TrialRun, Exception]]:
    """Take one optimizer step with every trial, in one packed pass if there are several.

    A trial that raises, or whose loss is not finite, stays as it was before the step, and the others continue. If the
    shared part of a packed pass raises, or a trial runs out of memory in it, the step is repeated trial by trial.

    Args:
        runs: trials of the pack, in the same order on all workers of the lane.
        ranks: this worker's rank; each worker trains on its shard of every batch.

    Returns:
        The trials that failed, each with its error.
    """
    begin = time.perf_counter()
    outcomes = _step_packed(runs) if len(runs) > 1 else [_step_alone(run) for run in runs]
    outcomes = all_reduce_gradients(ranks, runs, outcomes)
    failures = [(run, error) for run, outcome in zip(runs, outcomes, strict=True) if (error := _finish(run, outcome))]
    seconds_per_token = (time.perf_counter() - begin) / max(1, sum(run.tokens for run in runs))
    for run in runs:
        run.measurements["train_seconds"] += seconds_per_token * run.tokens
    return failures


def score_trials(runs: Sequence[TrialRun]) -> None:
    """Evaluate trials on their jobs' splits, so that the next :meth:`TrialRun.evaluate` of each costs nothing.

    Trials whose evaluation batches are small enough to gain by it are evaluated in one packed pass. An error is not
    raised here: the trial's own call of ``evaluate`` tries again, alone, and raises it.
    """
    splits = [(run, run.job.split) for run in runs if run.job.split]
    small = [(run, split) for run, split in splits if run.evaluation_tokens(split) < CHUNK_ROWS]
    packed = small if len(small) > 1 else []
    if packed:
        with suppress(Exception):
            in_lockstep([partial(run.evaluate, split) for run, split in packed], runs[0].device)
    for run, split in splits:
        if (run, split) not in packed:
            with suppress(Exception):
                run.evaluate(split)


def _finish(run: TrialRun, outcome: Outcome) -> Exception | None:
    if isinstance(outcome, Exception):
        return outcome
    try:
        run.finish_step(outcome)
    except Exception as error:
        return error
    return None


def _step_packed(runs: Sequence[TrialRun]) -> list[Outcome]:
    try:
        outcomes = _run_packed_passes(runs)
    except Exception:
        log.warning("a packed step failed and is repeated trial by trial:\n%s", traceback.format_exc())
        for run in runs:
            run.rewind()
        return [_step_alone(run) for run in runs]
    # A trial may have run out of memory because of its neighbours, whose graphs are freed by now.
    for k in [k for k, outcome in enumerate(outcomes) if is_out_of_memory(outcome)]:
        runs[k].rewind()
        outcomes[k] = _step_alone(runs[k])
    return outcomes


def _run_packed_passes(runs: Sequence[TrialRun]) -> list[Outcome]:
    """Run one forward and one backward pass for all trials, and more for those whose batch is in micro-batches."""
    outcomes: dict[int, Outcome] = {}
    pending = list(range(len(runs)))
    while pending:
        for k in pending:
            runs[k].prepare()
        calls = in_lockstep([runs[k].forward for k in pending], runs[0].device)
        losses = [call.result for call in calls if call.result is not None]
        if losses:
            torch.stack(losses).sum().backward()
        for k, call in zip(pending, calls, strict=True):
            outcomes[k] = call.error or _add_loss(outcomes.get(k), call.result)
        pending = [k for k in pending if isinstance(outcomes[k], Tensor) and runs[k].has_micro_batches_left]
    return [outcomes[k] for k in range(len(runs))]


def _step_alone(run: TrialRun) -> Outcome:
    """Run a trial's step, in ever smaller micro-batches while it runs out of memory, down to single rows."""
    outcome = _run_micro_batches(run)
    while is_out_of_memory(outcome) and run.halve_micro_batches():
        outcome = _run_micro_batches(run)
    return outcome


def _run_micro_batches(run: TrialRun) -> Outcome:
    loss: Tensor | None = None
    try:
        while loss is None or run.has_micro_batches_left:
            micro_batch_loss = run.forward()
            micro_batch_loss.backward()
            loss = _add_loss(loss, micro_batch_loss)
    except Exception as error:
        run.rewind()
        # The frames of the traceback hold the very tensors that did not fit.
        return error.with_traceback(None) if is_out_of_memory(error) else error
    return loss


def _add_loss(total: Outcome | None, loss: Tensor | None) -> Tensor:
    assert loss is not None  # a packed call without an error has a result
    return loss.detach() + total if isinstance(total, Tensor) else loss.detach()
