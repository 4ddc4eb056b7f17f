"""One optimizer step of several trials: in one pass through the frozen layers, or of one alone."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

import torch
from torch import Tensor

from orchestrator.engine.data_parallel import Outcome, reduced
from orchestrator.engine.matmul import CHUNK
from orchestrator.engine.packing import in_lockstep
from orchestrator.engine.ranks import ALONE, Ranks
from orchestrator.engine.trial_run import TrialRun

log = logging.getLogger(__name__)


def step(runs: Sequence[TrialRun], ranks: Ranks = ALONE) -> list[tuple[TrialRun, Exception]]:
    """Take one step with every trial, together if there are several.

    A trial that raises, or whose loss is no number, stays as it was before the step, and the others go on. What is
    raised in the pass that they share, and what runs out of memory in it, is repeated trial by trial.

    Args:
        runs: the trials, in the same order on all workers of the lane.
        ranks: this worker's place in it; each worker trains on rows of its own.

    Returns:
        The trials that failed, and what each raised.
    """
    begin = time.perf_counter()
    outcomes = _together(runs) if len(runs) > 1 else [_alone(run) for run in runs]
    whole = reduced(ranks, runs, outcomes)
    failed = [(run, error) for run, outcome in zip(runs, whole, strict=True) if (error := _finish(run, outcome))]
    share = (time.perf_counter() - begin) / max(1, sum(run.tokens for run in runs))
    for run in runs:
        run.measurements["train_seconds"] += share * run.tokens
    return failed


def score(runs: Sequence[TrialRun]) -> None:
    """Evaluate trials whose jobs end in the same round, together where their batches are small enough to gain by it.

    What is raised is left for each trial to meet again alone.
    """
    splits = [(run, run.job.split) for run in runs if run.job.split]
    small = [(run, split) for run, split in splits if run.evaluation_tokens(split) < CHUNK]
    together = small if len(small) > 1 else []
    with suppress(Exception):
        in_lockstep([partial(run.evaluate, split) for run, split in together])
    for run, split in splits:
        if (run, split) not in together:
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


def _together(runs: Sequence[TrialRun]) -> list[Outcome]:
    try:
        outcomes = _packed(runs)
    except Exception:
        log.warning("a packed step failed and is repeated trial by trial:\n%s", traceback.format_exc())
        for run in runs:
            run.rewind()
        return [_alone(run) for run in runs]
    short = [k for k, outcome in enumerate(outcomes) if out_of_memory(outcome)]
    for k in short:  # its neighbours took the room; their graphs are gone now
        runs[k].rewind()
        outcomes[k] = _alone(runs[k])
    return outcomes


def _packed(runs: Sequence[TrialRun]) -> list[Outcome]:
    """One backward pass for all; trials whose batch comes in parts go on until all parts were there."""
    outcomes: dict[int, Outcome] = {}
    going = list(range(len(runs)))
    while going:
        for k in going:
            runs[k].prepare()
        turns = in_lockstep([runs[k].forward for k in going])
        losses = [turn.result for turn in turns if turn.result is not None]
        if losses:
            torch.stack(losses).sum().backward()
        for k, turn in zip(going, turns, strict=True):
            outcomes[k] = turn.error or _plus(outcomes.get(k), turn.result)
        going = [k for k in going if isinstance(outcomes[k], Tensor) and runs[k].unfinished]
    return [outcomes[k] for k in range(len(runs))]


def _alone(run: TrialRun) -> Outcome:
    """In smaller parts where memory is short, as far as rows can be parted."""
    outcome = _attempt(run)
    while out_of_memory(outcome) and run.halve():
        outcome = _attempt(run)
    return outcome


def _attempt(run: TrialRun) -> Outcome:
    loss: Tensor | None = None
    try:
        while loss is None or run.unfinished:
            part = run.forward()
            part.backward()
            loss = _plus(loss, part)
    except Exception as error:
        run.rewind()
        # its frames hold what there was no room for
        return error.with_traceback(None) if out_of_memory(error) else error
    return loss


def _plus(so_far: Outcome | None, part: Tensor | None) -> Tensor:
    assert part is not None  # a turn without an error has a result
    return part.detach() + so_far if isinstance(so_far, Tensor) else part.detach()


def out_of_memory(outcome: Outcome) -> bool:
    """Whether this is torch's way, on a GPU or on a processor, to say that there is no room."""
    if isinstance(outcome, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(outcome, RuntimeError) and "DefaultCPUAllocator" in str(outcome)
