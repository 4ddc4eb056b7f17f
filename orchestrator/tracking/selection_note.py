"""What is said of a selection in MLflow: the description of a task's run, its numbers, and those of a method's run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.journal.events import Event
from orchestrator.selection.results import MethodResult, outcome
from orchestrator.selection.selection import Selection

COSTS = (
    "trainable_parameters", "head_parameters", "adapter_bytes", "peak_memory_bytes", "train_seconds",
    "latency_overhead_1", "latency_overhead_32", "mergeable",
)  # fmt: skip
"""Measurements of the recommended method that are metrics of the task's run: what reports and cards compare."""


def summary(event: Event) -> str:
    """Return a selection as Markdown, which MLflow shows as the run's description."""
    selection = Selection.from_dict(event)
    head = ("method", f"mean {selection.metric.name}", f"{selection.level_text} interval", "seeds", "result")
    named = "Closest" if selection.no_better else "Recommended"
    table = (head, ("---", "---:", "---", "---:", "---"), *_rows(selection))
    parts = [
        *([f"**{sentence(selection.no_better)}**"] if selection.no_better else []),
        f"{named}: **{selection.recommended}**. Reason: {sentence(selection.reason, capital=False)}",
        f"Alternative: {sentence(selection.alternative, capital=False)}",
        *([f"Probability: {selection.probability_text}."] if selection.probability else []),
        "\n".join(f"| {' | '.join(cells)} |" for cells in table),
        f"{selection.rows:,} test rows. Intervals cover test rows, and seeds where there are several; none covers how"
        f" well a method was tuned. {sentence(selection.resolution)} Ties and differences are at"
        f" the {selection.level_text} level.",
        "The whole report is among the artifacts: `report.html`.",
    ]
    return "\n\n".join(parts)


def _rows(selection: Selection) -> Iterator[tuple[str, ...]]:
    """Yield the cells of each method, then of each trivial predictor."""
    for result in selection.scored:
        collapsed = f", {result.collapsed_seeds} with one answer for every row" if result.collapsed_seeds else ""
        came_out = outcome(result.to_dict(), selection.recommended)
        seeds = f"{len(result.seed_scores)}{collapsed}"
        yield result.method, f"{result.mean_score:.3f}", _interval(result.interval), seeds, came_out
    for baseline in selection.baselines:
        yield baseline.name, f"{baseline.score:.3f}", _interval(baseline.interval), "", "baseline"


def _interval(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.3f} to {interval[1]:.3f}"


def sentence(clause: str, *, capital: bool = True) -> str:
    """Return a clause with a full stop, and with a capital at its beginning if asked for."""
    first = clause[:1].upper() if capital else clause[:1]
    return f"{first}{clause[1:].removesuffix('.')}."


def task_metrics(selection: Selection) -> dict[str, float | None]:
    """Return the numbers of a task's run: the recommended method's, and the best baseline's with its interval."""
    best, baseline = selection.winner, selection.baseline
    numbers = {
        "minimum_detectable_difference": selection.minimum_detectable_difference,
        "tied_count": len(selection.tied),
        "named_count": len(selection.named),
        **method_metrics(best),
        **{name: best.measurements.get(name) for name in COSTS},
    }
    if baseline is not None:
        low, high = baseline.interval
        numbers |= {"baseline_score": baseline.score, "baseline_low": low, "baseline_high": high}
    return numbers


def method_metrics(result: MethodResult) -> dict[str, float | None]:
    """Return the numbers of a method's result: score and lead over the best baseline with their bounds, and more."""
    lead, lead_low = result.baseline_lead or (None, None)
    return {
        **mean_scores(result.to_dict()),
        "seeds": len(result.seed_scores),
        "collapsed_seeds": result.collapsed_seeds or None,  # journals of earlier releases do not count them
        "probability": result.probability,
        "lead_over_baseline": lead,
        "lead_over_baseline_low": lead_low,
    }


def mean_scores(result: Mapping[str, Any]) -> dict[str, float]:
    """Return the mean over a method's seeds with its interval, and those of the metrics that are recorded beside it."""
    low, high = result["interval"]
    others = {
        f"{name}_{end}": value
        for name, scores in result.get("other_scores", {}).items()
        for end, value in zip(("mean", "low", "high"), scores, strict=True)
    }
    return {"mean_score": result["mean_score"], "mean_low": low, "mean_high": high, **others}
