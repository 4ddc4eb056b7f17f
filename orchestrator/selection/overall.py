"""Several tasks in one sweep: a method for each of them, or one for all, and what that costs.

Tasks have different metrics, so a method's loss on a task is scaled: 0 for the score of the best method there, 1 for
that of the worst. The method for all tasks is the one with the smallest mean loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from orchestrator.selection.selection import Selection


@dataclass(frozen=True, kw_only=True)
class Overall:
    """A sweep's choice of one method for all its tasks; the journal's ``selection_overall`` event.

    Args:
        per_task: the recommended method of each task.
        matrix: mean score by method and task; a method that was not scored on a task has none there.
        losses: scaled loss by method and task.
        recommended: one method for all tasks; empty where none was scored on all of them.
        loss: mean scaled loss of the recommended method.
        costs: by task, how much worse the recommended method is than the task's own, in units of the task's metric.
        tied_everywhere: methods that may be the best on every task.
        reason: why it was chosen, one clause.
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
        """Return plain JSON values: the fields of the event."""
        return asdict(self)

    @classmethod
    def from_dict(cls, event: Mapping[str, Any]) -> Self:
        """Return the choice that an event records."""
        values = {name: event[name] for name in cls.__dataclass_fields__}
        return cls(**{**values, "tied_everywhere": tuple(event["tied_everywhere"])})


def overall(selections: Sequence[Selection]) -> Overall:
    """Choose one method for all tasks.

    Args:
        selections: selections of the tasks, at least one.
    """
    tasks = [selection.task for selection in selections]
    scores = {
        selection.task: {result.method: result.mean_score for result in selection.scored} for selection in selections
    }
    methods = list(dict.fromkeys(method for by_method in scores.values() for method in by_method))
    losses = {selection.task: _losses(selection) for selection in selections}
    everywhere = [method for method in methods if all(method in scores[task] for task in tasks)]
    means = {method: sum(losses[task][method] for task in tasks) / len(tasks) for method in everywhere}
    best = min(everywhere, key=lambda method: means[method], default="")
    costs = {selection.task: _cost(selection, best) for selection in selections} if best else {}
    tied = tuple(method for method in everywhere if all(method in selection.tied for selection in selections))
    return Overall(
        per_task={selection.task: selection.recommended for selection in selections},
        matrix={method: {task: scores[task][method] for task in tasks if method in scores[task]} for method in methods},
        losses={method: {task: losses[task][method] for task in tasks if method in losses[task]} for method in methods},
        recommended=best,
        loss=means.get(best, 0.0),
        costs=costs,
        tied_everywhere=tied,
        reason=_reason(best, costs, tied, selections),
    )


def _losses(selection: Selection) -> dict[str, float]:
    """Return each method's scaled loss: 0 for the best score, 1 for the worst."""
    signed = {result.method: selection.metric.sign * result.mean_score for result in selection.scored}
    best, worst = max(signed.values()), min(signed.values())
    return {method: (best - value) / (best - worst) if best > worst else 0.0 for method, value in signed.items()}


def _cost(selection: Selection, method: str) -> float:
    """Return how much worse a method is than the recommended one, in units of the metric; below 0 it is better."""
    return selection.metric.sign * (selection.winner.mean_score - selection.result(method).mean_score)


def _reason(best: str, costs: Mapping[str, float], tied: Sequence[str], selections: Sequence[Selection]) -> str:
    if not best:
        return "no method was scored on every task"
    if all(selection.recommended == best for selection in selections):
        return f"{best} is recommended for every task"
    differences = ", ".join(
        f"{costs[selection.task]:.3f} {selection.metric.label} on {selection.task}"
        for selection in selections
        if selection.recommended != best
    )
    if best in tied:
        return f"{best} is tied with the best on every task; it is worse than the choice per task by {differences}"
    return f"{best} has the smallest mean loss; it is worse than the choice per task by {differences}"
