"""What a sweep says of one task: the journal's ``selection`` event, as an object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

Preference = Literal["score", "size", "memory", "latency", "training_time"]
Verdict = Literal["confirmed", "contradicted", "undecided"]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A method that was scored on the test split.

    Args:
        method: its name.
        trial: ``task/method/number`` of the configuration.
        score: mean over the seeds.
        interval: 95 %, over rows and seeds; over rows alone where there is one score.
        scores: of each seed.
        validation: of the trial, which brought it here.
        measurements: sizes and times; medians over the seeds.
        pareto: nothing scored is better in one of score, size, memory and latency, and as good in the others.
        gap: how far behind the best it is at least; ``None`` where it may be the best, or was not in contention.
        tied: it may be the best.
        reason: why it was not in contention.
        note: what went wrong with it.
    """

    method: str
    trial: str
    score: float
    interval: tuple[float, float]
    scores: tuple[float, ...]
    validation: float
    measurements: Mapping[str, float]
    pareto: bool = False
    gap: float | None = None
    tied: bool = False
    reason: str = ""
    note: str = ""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """From JSON values."""
        low, high = values["interval"]
        return cls(**{**values, "interval": (low, high), "scores": tuple(values["scores"])})


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What the literature says, and what this sweep says to it."""

    claim: str
    verdict: Verdict
    evidence: str


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which method, how sure, and why.

    Args:
        task: its name.
        metric: the score's name.
        higher_is_better: its direction.
        prefer: what decided among the tied methods.
        rows: of the test split.
        seeds: retrainings that were asked for.
        recommended: method.
        trial: ``task/method/number`` of its configuration.
        reason: one sentence.
        alternative: what would change it, one sentence.
        tied: methods that may be the best, the recommended first.
        minimum_detectable_difference: what this test split and these seeds could have shown, in units of the metric.
        finalists: the methods in contention, best first.
        others: scored once with their own trial, best first.
        failed: why a method that was to be scored was not.
        claims: what is said of these methods.
        evidence: :meth:`orchestrator.selection.evidence.Evidence.to_dict` over finalists and others, in their order.
    """

    task: str
    metric: str
    higher_is_better: bool
    prefer: Preference
    rows: int
    seeds: int
    recommended: str
    trial: str
    reason: str
    alternative: str
    tied: tuple[str, ...]
    minimum_detectable_difference: float
    finalists: tuple[Entry, ...]
    others: tuple[Entry, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    claims: tuple[Claim, ...] = ()
    evidence: Mapping[str, Any] = field(default_factory=dict)

    @property
    def scored(self) -> tuple[Entry, ...]:
        """Every method that was scored, finalists first."""
        return self.finalists + self.others

    @property
    def winner(self) -> Entry:
        """The recommended method."""
        return self.entry(self.recommended)

    def entry(self, method: str) -> Entry:
        """The method of that name."""
        return next(one for one in self.scored if one.method == method)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, the fields of the event."""
        return asdict(self)

    @classmethod
    def from_dict(cls, event: Mapping[str, Any]) -> Self:
        """From the event."""
        known = {name: event[name] for name in cls.__dataclass_fields__ if name in event}
        known |= {name: tuple(map(Entry.from_dict, event.get(name, ()))) for name in ("finalists", "others")}
        known["claims"] = tuple(Claim(**one) for one in event.get("claims", ()))
        return cls(**{**known, "tied": tuple(event["tied"])})


def selections(events: Sequence[Mapping[str, Any]]) -> dict[str, Selection]:
    """What a journal says of each task; the last word counts."""
    return {event["task"]: Selection.from_dict(event) for event in events if event["event"] == "selection"}
