"""The validation screening: which methods are retrained in the final, decided when the search ends.

The leader's score on validation is the best of many trials, so a part of its lead is winner's bias: of ``m`` equal
trials the best seems about ``1.5`` (m = 10) to ``2`` (m = 30) standard errors better than it is. A method is eliminated
only where its distance to the leader exceeds that bias and the noise of both scores together.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from orchestrator.common.metric import Metric
from orchestrator.common.trial_types import TrialRecord
from orchestrator.selection.best_trials import BestTrials

ERROR = "validation_standard_error"
"""Measurement of a full trial: the standard error of its score on validation, over rows."""
CONFIDENCE = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class Screening:
    """The methods that go into the final, and those that do not.

    Args:
        finalists: best trial of each method that passed the screening, the leader first.
        reasons: why a method is not among them, by method.
        cut: those of them that no evidence eliminates, and the cap on the number of finalists cuts.
    """

    finalists: tuple[TrialRecord, ...]
    reasons: Mapping[str, str]
    cut: frozenset[str] = frozenset()


def screen(
    best: BestTrials, records: Iterable[TrialRecord], metric: Metric, *, rows: int, max_finalists: int
) -> Screening:
    """Decide which methods pass the screening.

    Args:
        best: best trial of each method.
        records: all trials of the task.
        metric: metric of the trials' values.
        rows: validation rows that trials were scored on.
        max_finalists: upper limit of the number of finalists.
    """
    leader = best.leader
    trials = sum(r.key.method == leader.key.method and r.step == leader.step for r in records)
    finalists, reasons, cut = [leader], dict[str, str](), set[str]()
    for method, record in list(best.by_method.items())[1:]:
        reason = _elimination(record, leader, trials, metric, rows=rows)
        if not reason and len(finalists) >= max_finalists:
            reason = _cut(record, finalists)
            cut.add(method)
        if reason:
            reasons[method] = reason
        else:
            finalists.append(record)
    return Screening(tuple(finalists), reasons, frozenset(cut))


def _cut(record: TrialRecord, finalists: Sequence[TrialRecord]) -> str:
    """Return that a method that passes the screening is not retrained, and who is retrained with the same score."""
    equal = [
        finalist.key.method for finalist in finalists if (finalist.step, finalist.value) == (record.step, record.value)
    ]
    same = f"; {', '.join(equal)} had exactly the same score on validation" if equal else ""
    return f"cut by the cap of {len(finalists)} finalists (selection.contenders), not out by evidence{same}"


def _elimination(record: TrialRecord, leader: TrialRecord, trials: int, metric: Metric, *, rows: int) -> str:
    """Return why a method is eliminated; empty where it passes."""
    if record.step < leader.step:
        return f"none of its trials reached step {leader.step}"
    distance = metric.sign * (leader.value - record.value)
    error, leader_error = (standard_error(trial, rows, metric) for trial in (record, leader))
    allowed = CONFIDENCE * math.hypot(error, leader_error) + (winners_bias(trials) * leader_error if trials > 1 else 0)
    if distance <= allowed:
        return ""
    return (
        f"{distance:.3f} {metric.worse} than {leader.key.method} on validation; noise (95 % level) and winner's bias"
        f" explain {allowed:.3f} at most"
    )


def standard_error(record: TrialRecord, rows: int, metric: Metric) -> float:
    """Return the standard error of a trial's score on validation.

    Where it was not measured, that of a proportion of rows is taken, and infinity for a metric that is no proportion.
    """
    if (measured := record.measurements.get(ERROR)) is not None and math.isfinite(measured):
        return measured
    if not (metric.is_share and 0 <= record.value <= 1):
        return math.inf
    return math.sqrt(max(record.value * (1 - record.value), 0.25 / max(1, rows)) / max(1, rows))


def winners_bias(trials: int) -> float:
    """Return the expected maximum of equal trials over their mean, in standard errors (Blom, 1958)."""
    return max(0.0, NormalDist().inv_cdf((trials - 0.375) / (trials + 0.25))) if trials > 1 else 0.0
