"""Several tasks in one sweep: a method for each of them, or one for all, and what that costs.

Tasks have metrics of their own, so what a method loses on one is scaled: 0 where it is as good as the best method
there, 1 where it is as bad as the worst. One method for all is the one that loses least on average.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from orchestrator.selection.selection import Selection


@dataclass(frozen=True, kw_only=True)
class Overall:
    """What a sweep says of all its tasks together; the journal's ``selection_overall`` event.

    Args:
        per_task: the recommended method of each task.
        matrix: score by method and task; a method that was not scored on a task has none there.
        losses: scaled loss by method and task.
        recommended: one method for all tasks; empty where none was scored on all of them.
        loss: its mean scaled loss.
        costs: how much worse than the best method it is on each task, in units of the task's metric.
        tied_everywhere: methods that may be the best on every task.
        reason: one sentence.
    """

    per_task: Mapping[str, str]
    matrix: Mapping[str, Mapping[str, float]]
    losses: Mapping[str, Mapping[str, float]]
    recommended: str
    loss: float
    costs: Mapping[str, float]
    tied_everywhere: tuple[str, ...]
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, the fields of the event."""
        return asdict(self)

    @classmethod
    def from_dict(cls, event: Mapping[str, Any]) -> Self:
        """From the event."""
        known = {name: event[name] for name in cls.__dataclass_fields__}
        return cls(**{**known, "tied_everywhere": tuple(event["tied_everywhere"])})


def overall(selections: Sequence[Selection]) -> Overall:
    """Put the tasks side by side.

    Args:
        selections: of each task, at least one.
    """
    tasks = [one.task for one in selections]
    scores = {one.task: {entry.method: entry.score for entry in one.scored} for one in selections}
    methods = list(dict.fromkeys(method for own in scores.values() for method in own))
    lost = {one.task: _losses(one) for one in selections}
    everywhere = [method for method in methods if all(method in scores[task] for task in tasks)]
    means = {method: sum(lost[task][method] for task in tasks) / len(tasks) for method in everywhere}
    best = min(everywhere, key=lambda method: means[method], default="")
    costs = {one.task: _cost(one, best) for one in selections} if best else {}
    tied = tuple(method for method in everywhere if all(method in one.tied for one in selections))
    return Overall(
        per_task={one.task: one.recommended for one in selections},
        matrix={method: {task: scores[task][method] for task in tasks if method in scores[task]} for method in methods},
        losses={method: {task: lost[task][method] for task in tasks if method in lost[task]} for method in methods},
        recommended=best,
        loss=means.get(best, 0.0),
        costs=costs,
        tied_everywhere=tied,
        reason=_reason(best, costs, tied, selections),
    )


def _losses(selection: Selection) -> dict[str, float]:
    """0 for the best score, 1 for the worst."""
    sign = 1 if selection.higher_is_better else -1
    signed = {entry.method: sign * entry.score for entry in selection.scored}
    best, worst = max(signed.values()), min(signed.values())
    return {method: (best - value) / (best - worst) if best > worst else 0.0 for method, value in signed.items()}


def _cost(selection: Selection, method: str) -> float:
    """What the method loses against the recommended one, in units of the metric; below 0 it is the better."""
    sign = 1 if selection.higher_is_better else -1
    return sign * (selection.winner.score - selection.entry(method).score)


def _reason(best: str, costs: Mapping[str, float], tied: Sequence[str], selections: Sequence[Selection]) -> str:
    if not best:
        return "No method was scored on every task."
    if all(one.recommended == best for one in selections):
        return f"{best} is recommended for every task, so that one method for all costs nothing."
    told = ", ".join(
        f"{costs[one.task]:.3f} {one.metric} on {one.task}" for one in selections if one.recommended != best
    )
    if best in tied:
        return f"{best} may be the best on every task; against the choice per task it measured {told} less."
    return f"{best} loses least over all tasks: against the choice per task it costs {told}."
