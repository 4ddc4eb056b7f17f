"""The validation screening: which methods are retrained in the final, decided when the search ends.

The leader's score on validation is the best of many trials, so a part of its lead is winner's bias: of ``m`` equal
trials the best seems about ``1.5`` (m = 10) to ``2`` (m = 30) standard errors better than it is. And a method's best
trial is not the best that it can do: more trials would bring it some gain, and the leader too (see
:mod:`orchestrator.selection.tuning_gain`). A method is eliminated only where its distance to the leader exceeds that
bias, the noise of both scores, and the 95 % quantile of what it may gain more than the leader, together. Where the last
alone could close the distance, it is undecided: neither retrained, since that would tell nothing of a configuration
that has not been tried, nor eliminated.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from orchestrator.common.metric import Metric
from orchestrator.common.trial_types import TrialRecord
from orchestrator.selection.best_trials import BestTrials
from orchestrator.selection.gain_draws import allowances
from orchestrator.selection.tuning_gain import TuningGain, learned_gain, room_of, unit_of

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
        undecided: those of them that more trials may bring ahead.
        unit: unit of the tuning gains, in the metric, see :func:`orchestrator.selection.tuning_gain.unit_of`.
    """

    finalists: tuple[TrialRecord, ...]
    reasons: Mapping[str, str]
    cut: frozenset[str] = frozenset()
    undecided: frozenset[str] = frozenset()
    unit: float = 0.0


def screen(
    best: BestTrials,
    records: Iterable[TrialRecord],
    metric: Metric,
    *,
    rows: int,
    max_finalists: int,
    gain: TuningGain | None = None,
) -> Screening:
    """Decide which methods pass the screening.

    Args:
        best: best trial of each method.
        records: all trials of the task.
        metric: metric of the trials' values.
        rows: validation rows that trials were scored on.
        max_finalists: upper limit of the number of finalists.
        gain: what tuning may still bring; as it was learned from recorded tables, if left out.
    """
    leader = best.leader
    full: dict[str, list[float]] = {}
    for record in records:
        if math.isfinite(value := record.values.get(leader.step, math.nan)):
            full.setdefault(record.key.method, []).append(value)
    unit = unit_of([value for values in full.values() for value in values], metric)
    tuning = _tuning(best, full, metric, unit, gain or learned_gain())
    trials = len(full[leader.key.method])
    finalists, reasons, cut, undecided = [leader], dict[str, str](), set[str](), set[str]()
    for method, record in list(best.by_method.items())[1:]:
        reason, is_undecided = _behind(record, leader, trials, metric, rows=rows, tuning=tuning.get(method, 0.0))
        if is_undecided:
            undecided.add(method)
        elif not reason and len(finalists) >= max_finalists:
            reason = _cut(record, finalists)
            cut.add(method)
        if reason:
            reasons[method] = reason
        else:
            finalists.append(record)
    return Screening(tuple(finalists), reasons, frozenset(cut), frozenset(undecided), unit)


def _tuning(
    best: BestTrials, full: Mapping[str, Sequence[float]], metric: Metric, unit: float, gain: TuningGain
) -> dict[str, float]:
    """Return how much more each method with full trials may gain than the leader, the leader's 0 first."""
    methods = [method for method in best.by_method if method in full]
    room = room_of([best.by_method[method].value for method in methods], metric)
    drawn = gain.draw(methods, [len(full[method]) for method in methods], unit, room)
    return dict(zip(methods, allowances(drawn, [0])[:, 0].tolist(), strict=True))


def _cut(record: TrialRecord, finalists: Sequence[TrialRecord]) -> str:
    """Return that a method that passes the screening is not retrained, and who is retrained with the same score."""
    equal = [
        finalist.key.method for finalist in finalists if (finalist.step, finalist.value) == (record.step, record.value)
    ]
    same = f"; {', '.join(equal)} had exactly the same score on validation" if equal else ""
    return f"cut by the cap of {len(finalists)} finalists (selection.contenders), not out by evidence{same}"


def _behind(
    record: TrialRecord, leader: TrialRecord, trials: int, metric: Metric, *, rows: int, tuning: float
) -> tuple[str, bool]:
    """Return why a method is behind, empty where it passes, and whether more trials may bring it ahead."""
    if record.step < leader.step:
        return f"none of its trials reached step {leader.step}", False
    distance = metric.sign * (leader.value - record.value)
    error, leader_error = (standard_error(trial, rows, metric) for trial in (record, leader))
    allowed = CONFIDENCE * math.hypot(error, leader_error) + (winners_bias(trials) * leader_error if trials > 1 else 0)
    if distance <= allowed:
        return "", False
    lower, noise = _apart(distance, allowed)
    gains = f"more trials may bring {tuning:.3f} (95 % quantile)"
    how = (
        f"{lower} {metric.worse} than {leader.key.method} on validation; noise (95 % level) and winner's bias"
        f" explain {noise} at most"
    )
    if distance <= allowed + tuning:
        return f"undecided: {how}, and {gains}", True
    return how + (f", and {gains}" if tuning else ""), False


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


def _apart(first: float, second: float) -> tuple[str, str]:
    """Return two different numbers with three decimals, or with as many as tell them apart."""
    decimals = next((count for count in range(3, 9) if f"{first:.{count}f}" != f"{second:.{count}f}"), 9)
    return f"{first:.{decimals}f}", f"{second:.{decimals}f}"
