"""A sweep's choice for one task: the journal's ``selection`` event, as an object."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, Self

from orchestrator.common.metric import Metric
from orchestrator.selection.baseline import NO_BETTER, Baseline, State, state_of
from orchestrator.selection.evidence import Evidence
from orchestrator.selection.looks import level_text
from orchestrator.selection.results import MethodResult
from orchestrator.tasks import recorded_metric

Preference = Literal["score", "size", "memory", "latency", "training_time"]
Verdict = Literal["confirmed", "contradicted", "undecided"]
FEW = 2
"""Degrees of freedom of a variance, up to which an interval at the 95 % level is more than twice as wide as of many."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A claim of the literature, with the verdict of one sweep on it."""

    claim: str
    verdict: Verdict
    evidence: str


@dataclass(frozen=True, kw_only=True)
class Selection:
    """A sweep's choice of a method for one task, with its evidence.

    Args:
        task: name of the task.
        metric: metric of the scores.
        prefer: the preference that decided among the tied methods.
        rows: rows of the test split.
        seeds: retrainings per finalist that the configuration asks for.
        recommended: the chosen method.
        trial: ``task/method/number`` of its configuration.
        reason: why it was chosen, one clause.
        alternative: what would have been chosen under other conditions, one clause.
        tied: methods that may be the best at the look's level, the recommended one first.
        minimum_detectable_difference: the smallest difference to the nearest rival that this test split and these
            seeds could have shown, in units of the metric.
        baselines: scores of the trivial predictors, the best first; none where there are none, and in journals of
            earlier releases.
        finalists: results of the methods that passed the validation screening, best first.
        others: results of the eliminated methods, each of its own trial scored once, best first.
        failed: why a method has no result, by method.
        claims: claims of the literature about these methods, held against the results.
        tuning_unit: unit of the tuning gains, in the metric, see :mod:`orchestrator.selection.tuning_gain`; 0 in
            journals of earlier releases.
        look: which look at the test split it rests on, from 1; see :mod:`orchestrator.selection.looks`.
        evidence: :meth:`orchestrator.selection.evidence.Evidence.to_dict` over finalists and others, in their order.
    """

    task: str
    metric: Metric
    prefer: Preference
    rows: int
    seeds: int
    recommended: str
    trial: str
    reason: str
    alternative: str
    tied: tuple[str, ...]
    minimum_detectable_difference: float
    finalists: tuple[MethodResult, ...]
    others: tuple[MethodResult, ...] = ()
    baselines: tuple[Baseline, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    claims: tuple[Claim, ...] = ()
    tuning_unit: float = 0.0
    evidence: Mapping[str, Any] = field(default_factory=dict)
    look: int = 1

    @property
    def level_text(self) -> str:
        """The level of its intervals and ties, as text."""
        return level_text(self.look)

    @property
    def scored(self) -> tuple[MethodResult, ...]:
        """Results of all methods that were scored on the test split, finalists first."""
        return self.finalists + self.others

    @property
    def winner(self) -> MethodResult:
        """Result of the recommended method."""
        return self.result(self.recommended)

    @property
    def baseline(self) -> Baseline | None:
        """The best trivial predictor; ``None`` where there is none."""
        return self.baselines[0] if self.baselines else None

    @property
    def state(self) -> State:
        """Whether the recommended method is better than the best trivial predictor."""
        return state_of(is_better=self.winner.beats_baseline)

    @property
    def no_better(self) -> str:
        """:attr:`no_better_clause` with the score of the best trivial predictor."""
        if not self.no_better_clause or self.baseline is None:
            return ""
        return f"{self.no_better_clause} ({self.metric.label} {self.baseline.text})"

    @property
    def no_better_clause(self) -> str:
        """That no method was better than the best trivial predictor; empty where one was.

        A higher score whose lead may be chance shows nothing, and does not show that the method is no better either.
        """
        if self.state != NO_BETTER or self.baseline is None:
            return ""
        is_higher = any(result.baseline_lead and result.baseline_lead[0] > 0 for result in self.scored)
        was = "was shown to be" if is_higher else "was"
        return f"no method {was} better than {self.baseline.name}"

    def over_baseline(self, result: MethodResult) -> str:
        """Return by how much a method leads over the best trivial predictor, a clause; empty where there is none."""
        if result.baseline_lead is None or self.baseline is None:
            return ""
        lead, low = result.baseline_lead
        return f"{lead:+.3f} against {self.baseline.name}, lower bound {low:+.3f} ({self.level_text} level)"

    def behind(self, result: MethodResult) -> str:
        """Return how far a finalist is behind the best one, a clause; empty for one that may be the best."""
        if result.undecided:
            return "behind by no more than what more trials may bring it (95 % quantile)"
        if result.gap is not None:
            return f"at least {result.gap:.3f} {self.metric.worse} than the best ({self.level_text} level)"
        return ""

    @property
    def named(self) -> tuple[str, ...]:
        """The methods that an exhaustive search may find the best: tied, undecided, or cut by the cap."""
        others = [result.method for result in self.scored if result.undecided or result.cut]
        return (*self.tied, *(method for method in others if method not in self.tied))

    @property
    def probability(self) -> dict[str, float]:
        """The probability of each scored method to be the best of an exhaustive search, the highest first."""
        known = {result.method: result.probability for result in self.scored if result.probability is not None}
        return dict(sorted(known.items(), key=lambda item: (item[0] != self.recommended, -item[1])))

    @property
    def probability_text(self) -> str:
        """The probabilities in words, the recommended method's first; empty where they are unknown."""
        return probability_text(self.probability)

    @property
    def resolution(self) -> str:
        """What the least significant difference is and means, a clause."""
        difference, found = (
            self.minimum_detectable_difference,
            "a true difference of that size is found half of the time",
        )
        of = "to the nearest rival" if len(self.finalists) > 1 else "to a rival of equal uncertainty"
        return f"least significant difference {of}: {difference:.3f}; {found}{self._more_seeds}"

    @property
    def _more_seeds(self) -> str:
        """That more seeds would narrow intervals most, a clause; empty where rows matter more, or seeds are many."""
        if not self.evidence:
            return ""
        evidence = Evidence.from_dict(self.evidence)
        number = [result.method for result in self.scored].index(self.recommended)
        if not 0 < evidence.freedom <= FEW or evidence.seed_parts[number] <= evidence.row_covariance[number, number]:
            return ""
        retrainings = int(evidence.seeds[evidence.seeds > 1].sum())
        return (
            f"; most of it is the difference between seeds, of which {retrainings} retrainings tell little: more of"
            " them (selection.seeds) would narrow it most"
        )

    def result(self, method: str) -> MethodResult:
        """Return a method's result.

        Raises:
            KeyError: if the method was not scored.
        """
        return {result.method: result for result in self.scored}[method]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values: the fields of the journal's ``selection`` event."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        metric = {"metric": self.metric.name, "higher_is_better": self.metric.higher_is_better}
        return {
            **values,
            **metric,
            "finalists": [result.to_dict() for result in self.finalists],
            "others": [result.to_dict() for result in self.others],
            "baselines": [baseline.to_dict() for baseline in self.baselines],
            "failed": dict(self.failed),
            "claims": [asdict(claim) for claim in self.claims],
            "evidence": dict(self.evidence),
        }

    @classmethod
    def from_dict(cls, event: Mapping[str, Any]) -> Self:
        """Return the selection that a ``selection`` event records."""
        values = {entry.name: event[entry.name] for entry in fields(cls) if entry.name in event}
        values |= {name: tuple(map(MethodResult.from_dict, event.get(name, ()))) for name in ("finalists", "others")}
        values["baselines"] = tuple(map(Baseline.from_dict, event.get("baselines", ())))
        values["claims"] = tuple(Claim(**claim) for claim in event.get("claims", ()))
        values["metric"] = recorded_metric(event["metric"], higher_is_better=event["higher_is_better"])
        return cls(**{**values, "tied": tuple(event["tied"])})


def probability_text(probability: Mapping[str, float]) -> str:
    """Return probabilities in words, in their order; empty where there are none."""
    if not probability:
        return ""
    (first, share), *rest = probability.items()
    others = ", ".join(f"{method} {value:.2f}" for method, value in rest)
    return f"{first} {share:.2f} that a full search would not prefer another" + (f"; {others}" if others else "")


def selections(events: Sequence[Mapping[str, Any]]) -> dict[str, Selection]:
    """Return the selection of each task of a journal; the last one of a task counts.

    The scores of the kept checkpoints are taken from the ``test`` events where the selection does not hold them, as
    that of release 0.1 does not.
    """
    kept = {event["trial"]: event["checkpoint_score"] for event in events
            if event["event"] == "test" and event["role"] != "seed"}  # fmt: skip
    by_task = {event["task"]: Selection.from_dict(event) for event in events if event["event"] == "selection"}
    return {task: _with_checkpoint_scores(selection, kept) for task, selection in by_task.items()}


def _with_checkpoint_scores(selection: Selection, scores: Mapping[str, float | None]) -> Selection:
    def completed(result: MethodResult) -> MethodResult:
        score = scores.get(result.trial)
        return (
            replace(result, checkpoint_score=score)
            if math.isnan(result.checkpoint_score) and score is not None
            else result
        )

    return replace(
        selection,
        finalists=tuple(map(completed, selection.finalists)),
        others=tuple(map(completed, selection.others)),
    )
