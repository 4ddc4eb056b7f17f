"""Choosing again from a finished sweep, under limits and preferences that it did not know. Nothing is trained.

The answer is chosen among the methods that were scored on the test split. Those within the limits are compared with
each other again, from the covariance that the sweep recorded: without the best method, others may be tied.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.common.trial_types import TrialKey, TrialRecord
from orchestrator.journal.events import Event
from orchestrator.selection.baseline import State, state_of
from orchestrator.selection.evidence import Evidence
from orchestrator.selection.gain_draws import draw_gains, with_probabilities
from orchestrator.selection.limits import Limit, Limits, limit_text, option
from orchestrator.selection.looks import level_of
from orchestrator.selection.recommend import recommend
from orchestrator.selection.results import MethodResult
from orchestrator.selection.selection import Preference, Selection
from orchestrator.selection.tied_set import ranks

Exceeded = Mapping[str, Mapping[Limit, float]]


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A sweep's answer for one task.

    Args:
        selection: the sweep's own selection.
        limits: limits that were asked for.
        result: result of the chosen method; ``None`` where no method satisfies the limits.
        tied: methods within the limits that are tied with the best of them, the chosen one first.
        reason: why this method, or why none; one clause.
        alternative: what would change the choice; where no method satisfies the limits, which limit to relax.
        exceeded: limits that each scored method exceeds, with its own values.
        unscored: trial within the limits that has no test score and the best value on validation.
        backbone: size of the backbone in memory, bytes, which counts in what a method needs.
        probability: of each scored method within the limits, to be the best of an exhaustive search among them.
    """

    selection: Selection
    limits: Limits
    result: MethodResult | None
    tied: tuple[str, ...]
    reason: str
    alternative: str
    exceeded: Exceeded
    unscored: TrialRecord | None = None
    backbone: float = 0.0
    probability: Mapping[str, float] = field(default_factory=dict)

    @property
    def state(self) -> State:
        """Whether the chosen method is better than the best trivial predictor."""
        return state_of(is_better=self.result is None or self.result.beats_baseline)

    @property
    def named(self) -> list[str]:
        """The methods within the limits that an exhaustive search may find the best, the chosen one first."""
        return [*self.tied, *(method for method in self.selection.named
                              if method not in self.tied and method in self.probability)]  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        result, trial = self.result, self.unscored
        return {
            "task": self.selection.task,
            "method": result.method if result else None,
            "trial": result.trial if result else None,
            "metric": self.selection.metric.name,
            "mean_score": result.mean_score if result else None,
            "interval": list(result.interval) if result else None,
            "other_scores": {name: list(scores) for name, scores in result.other_scores.items()} if result else {},
            "seeds": len(result.seed_scores) if result else None,
            "baseline": self.selection.baseline.to_dict() if self.selection.baseline else None,
            "state": self.state if result else None,
            "collapsed_seeds": result.collapsed_seeds if result else None,
            "checkpoint_score": result.checkpoint_score if result and math.isfinite(result.checkpoint_score) else None,
            "tied": list(self.tied),
            "named": self.named,
            "probability": dict(self.probability),
            "reason": self.reason,
            "alternative": self.alternative,
            "pareto": [scored.method for scored in self.selection.scored if scored.pareto],
            "measurements": dict(result.measurements) if result else {},
            "broken": {method: dict(limits) for method, limits in self.exceeded.items()},
            "unscored": {"trial": str(trial.key), "validation": trial.value} if trial else None,
        }


def ask(
    selection: Selection, limits: Limits, prefer: Preference | None, *, backbone: float, events: Sequence[Event] = ()
) -> Reply:
    """Choose again.

    Args:
        selection: the sweep's own selection.
        limits: limits that the answer must satisfy.
        prefer: what decides among the tied; the sweep's own preference if left out.
        backbone: size of the backbone in memory, bytes.
        events: events of the journal, for trials that were not scored on the test split.
    """
    exceeded = {result.method: limits.exceeded(result.measurements, backbone) for result in selection.scored}
    within = [number for number, result in enumerate(selection.scored) if not exceeded[result.method]]
    unscored = _unscored(selection, limits, backbone, events, [selection.scored[number] for number in within])
    if not within:
        reason, alternative = _no_method(selection, limits, exceeded)
        return Reply(
            selection=selection, limits=limits, result=None, tied=(), reason=reason, alternative=alternative,
            exceeded=exceeded, unscored=unscored, backbone=backbone,
        )  # fmt: skip
    results, probability = _compared_again(selection, within), _probabilities(selection, within)
    choice = recommend(results, prefer or selection.prefer, selection.metric, level=selection.level_text)
    best = next(result for result in results if result.method == choice.method)
    rivals = [result for result in results if result is not best and (result.tied or result.gap is not None)]
    return Reply(
        selection=selection,
        limits=limits,
        result=best,
        tied=(best.method, *(result.method for result in results if result.tied and result is not best)),
        reason=_reason_within_limits(best, results) if limits.values() and not rivals else choice.reason,
        alternative=_limit_to_relax(selection, exceeded, best) if limits.values() else choice.alternative,
        exceeded=exceeded,
        unscored=unscored,
        backbone=backbone,
        probability=dict(sorted(probability.items(), key=lambda item: (item[0] != best.method, -item[1]))),
    )


def _reason_within_limits(best: MethodResult, results: Sequence[MethodResult]) -> str:
    """Return why a method without rivals within the limits is chosen."""
    kind = "scored method" if len(results) == 1 else "finalist"
    return f"{best.method} is the only {kind} within the limits"


def _limit_to_relax(selection: Selection, exceeded: Exceeded, best: MethodResult) -> str:
    """Return which single limit excludes a better score, and the value that would admit it."""
    sign = selection.metric.sign
    excluded = [
        (result, name, value)
        for result in selection.scored
        for name, value in exceeded[result.method].items()
        if len(exceeded[result.method]) == 1
        and math.isfinite(value)
        and sign * result.mean_score > sign * best.mean_score
    ]
    if not excluded:
        return "no single limit excludes a better score"
    result, name, value = max(excluded, key=lambda candidate: sign * candidate[0].mean_score)
    change = f"without {option(name)}" if name == "mergeable" else f"with {option(name, value)}"
    return f"{change}: {result.method}, {result.mean_score:.3f}"


def _compared_again(selection: Selection, within: Sequence[int]) -> list[MethodResult]:
    """Return the results within the limits, compared with each other alone where a finalist is missing."""
    results = [selection.scored[number] for number in within]
    finalists = [number for number in within if number < len(selection.finalists)]
    if len(finalists) == len(selection.finalists):
        return results
    # Finalists are compared with finalists; without any, the eliminated methods are, each with its single score.
    numbers = finalists or list(within)
    evidence = Evidence.from_dict(selection.evidence).of(numbers)
    methods = [selection.scored[number].method for number in numbers]
    rank = dict(zip(methods, ranks(evidence, selection.metric, level=level_of(selection.look)), strict=True))
    return [
        replace(result, tied=rank[result.method].tied, gap=rank[result.method].gap or None)
        if result.method in rank
        else result
        for result in results
    ]


def _probabilities(selection: Selection, within: Sequence[int]) -> dict[str, float]:
    """Return the probability of each method to be the best of an exhaustive search within the limits."""
    if len(within) == len(selection.scored) or not selection.tuning_unit:
        return selection.probability
    results, evidence = [selection.scored[number] for number in within], Evidence.from_dict(selection.evidence)
    gains = draw_gains(results, selection.tuning_unit, selection.metric)
    again = with_probabilities(results, evidence.of(within), selection.metric, gains)
    return {result.method: result.probability for result in again if result.probability is not None}


def _no_method(selection: Selection, limits: Limits, exceeded: Exceeded) -> tuple[str, str]:
    """Return that no method satisfies the limits, and the single limit to relax."""
    reason = f"no scored method satisfies {limits.text()}"
    single = [
        (name, result.method, value)
        for result in selection.scored
        for name, value in exceeded[result.method].items()
        if len(exceeded[result.method]) == 1 and math.isfinite(value)
    ]
    if single:
        name, method, value = min(single, key=lambda candidate: _excess(candidate[0], candidate[2], limits))
        change = f"leave out {option(name)}" if name == "mergeable" else f"write {option(name, value)}"
        return reason, f"relax one limit: {change}, and {method} satisfies the rest ({limit_text(name, value)})"
    closest = min(selection.scored, key=lambda result: (len(exceeded[result.method]), result.method))
    values = ", ".join(
        f"{option(name)} ({limit_text(name, value)})" for name, value in exceeded[closest.method].items()
    )
    return reason, f"relaxing one limit is not enough: {closest.method} comes closest and exceeds {values}"


def _excess(name: Limit, value: float, limits: Limits) -> float:
    """Return by which fraction a value exceeds its limit; infinity for a limit that is kept or not."""
    limit = limits.values()[name]
    if name == "mergeable":
        return math.inf
    return (value - limit) / abs(limit) if limit else math.inf


def _unscored(
    selection: Selection, limits: Limits, backbone: float, events: Sequence[Event], within: Sequence[MethodResult]
) -> TrialRecord | None:
    """Return the best full trial within the limits, if validation ranks it above every scored method within them."""
    if not limits.values():
        return None
    sign = selection.metric.sign
    rungs = [event for event in events if event["event"] == "rung" and event["trial"].startswith(f"{selection.task}/")]
    last = max((rung["step"] for rung in rungs), default=0)
    scored = {result.trial for result in selection.scored}
    candidates = [rung for rung in rungs if rung["step"] == last and rung["value"] is not None
                  and rung["trial"] not in scored and not limits.exceeded(_measured(rung), backbone)]  # fmt: skip
    if not candidates:
        return None
    best = max(candidates, key=lambda rung: sign * rung["value"])
    if any(sign * result.validation >= sign * best["value"] for result in within):
        return None
    started = (event for event in events if event["event"] == "trial" and event["trial"] == best["trial"])
    return TrialRecord(
        key=TrialKey.parse(best["trial"]),
        params=next((event["params"] for event in started), {}),
        values={best["step"]: best["value"]},
        measurements=_measured(best),
    )


def _measured(rung: Event) -> dict[str, float]:
    """Return a rung's measurements without those that JSON could not represent."""
    return {name: value for name, value in rung.get("measurements", {}).items() if value is not None}
