"""Who is still in contention when the search ends, told by validation alone.

The leader's score there is the best of many, so part of its lead is luck: of ``m`` equal trials the best seems about
``1.5`` (m = 10) to ``2`` (m = 30) standard errors better than it is. A method is out only where it is behind by more
than that and the noise of both scores together.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import NormalDist

from orchestrator.common.trial_types import TrialRecord
from orchestrator.selection.choose import Finalists

ERROR = "validation_standard_error"
"""The fact that a full trial has: the standard error of its score on validation, over rows."""
CONFIDENCE = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class Screening:
    """Who is retrained, and why the others are not.

    Args:
        contenders: the best trial of each method in contention, the leader first.
        reasons: why a method is not, by method.
    """

    contenders: tuple[TrialRecord, ...]
    reasons: Mapping[str, str]


def screen(
    found: Finalists, records: Iterable[TrialRecord], *, higher_is_better: bool, rows: int, most: int
) -> Screening:
    """Part the methods.

    Args:
        found: each method's best trial.
        records: all trials of the task.
        higher_is_better: the metric's direction.
        rows: of validation that were scored.
        most: so many methods stay at most.
    """
    leader, trials = found.champion, list(records)
    tried = sum(r.key.method == leader.key.method and r.step == leader.step for r in trials)
    contenders, reasons = [leader], {}
    for method, record in list(found.by_method.items())[1:]:
        reason = _out(record, leader, tried, higher_is_better=higher_is_better, rows=rows)
        if not reason and len(contenders) >= most:
            reason = f"{len(contenders)} methods are ahead of it on validation, and no more are retrained"
        if reason:
            reasons[method] = reason
        else:
            contenders.append(record)
    return Screening(tuple(contenders), reasons)


def _out(record: TrialRecord, leader: TrialRecord, tried: int, *, higher_is_better: bool, rows: int) -> str:
    """Why a method is out, or nothing."""
    if record.step < leader.step:
        return f"none of its trials came to step {leader.step}"
    lead = (leader.value - record.value) * (1 if higher_is_better else -1)
    mine, theirs = (standard_error(one, rows, higher_is_better=higher_is_better) for one in (record, leader))
    allowed = CONFIDENCE * math.hypot(mine, theirs) + (winners_bias(tried) * theirs if tried > 1 else 0.0)
    if lead <= allowed:
        return ""
    return f"{lead:.3f} behind {leader.key.method} on validation, where up to {allowed:.3f} could be luck"


def standard_error(record: TrialRecord, rows: int, *, higher_is_better: bool) -> float:
    """Of a trial's score on validation; that of a share of rows where nobody measured it, endless for a loss."""
    if (measured := record.measurements.get(ERROR)) is not None and math.isfinite(measured):
        return measured
    if not (higher_is_better and 0 <= record.value <= 1):
        return math.inf
    return math.sqrt(max(record.value * (1 - record.value), 0.25 / max(1, rows)) / max(1, rows))


def winners_bias(trials: int) -> float:
    """How many standard errors the best of so many equal trials seems better than it is (Blom, 1958)."""
    return max(0.0, NormalDist().inv_cdf((trials - 0.375) / (trials + 0.25))) if trials > 1 else 0.0
