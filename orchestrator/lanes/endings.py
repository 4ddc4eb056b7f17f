"""What the end of a trial's work means for the trial: it ends for reasons of its own only.

A lane knows these, and answers: the trial raised an error, its loss is not finite, or its lane died twice while the
trial was alone in it. Whatever else ends, a process or a connection, says nothing about the trial, which stays open.
"""

from __future__ import annotations

from enum import Enum

RESTARTS = 3
"""How often Ray Tune starts a trial's process again, which holds no state: the trial goes on from its last rung."""


class Cause(Enum):
    """Why a trial's work has ended without a result."""

    FAILED = "a lane has answered that the trial failed"
    CANCELLED = "its job was cancelled"
    PROCESS_DIED = "its process in Ray Tune has died, or could not reach the broker"
    TUNE_ENDED = "Ray Tune has ended it"


class Verdict(Enum):
    """What follows from it."""

    END_TRIAL = "the trial ends as failed"
    GO_ON = "the trial goes on in another process"
    LEAVE_OPEN = "the trial stays open; the sweep has stopped already"
    STOP_SWEEP = "the trial stays open, and the sweep stops and can be resumed"


def verdict(cause: Cause, *, stopped: bool, restarts: int = 0) -> Verdict:
    """Return what follows from the end of a trial's work.

    Args:
        cause: why it has ended.
        stopped: whether the sweep starts no more work, and has decided what becomes of its open trials.
        restarts: how often the trial's process was started again.
    """
    if cause is Cause.FAILED:
        return Verdict.END_TRIAL
    if stopped:
        return Verdict.LEAVE_OPEN
    if cause is Cause.PROCESS_DIED and restarts < RESTARTS:
        return Verdict.GO_ON
    return Verdict.STOP_SWEEP
