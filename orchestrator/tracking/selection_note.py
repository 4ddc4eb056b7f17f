"""What is said of a selection in MLflow: the description of a task's run, and the numbers of a method's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.journal.events import Event
from orchestrator.selection.looks import level_text
from orchestrator.selection.results import outcome


def summary(event: Event) -> str:
    """Return a selection as Markdown, which MLflow shows as the run's description."""
    level = level_text(event.get("look", 1))
    parts = [
        *no_better(event),
        f"Recommended: **{event['recommended']}**. Reason: {event['reason'].removesuffix('.')}.",
        f"Alternative: {event['alternative'].removesuffix('.')}.",
        f"| method | mean {event['metric']} | {level} interval | seeds | result |\n| --- | ---: | --- | ---: | --- |",
    ]
    for result in (*event["finalists"], *event["others"]):
        low, high = result["interval"]
        cells = (
            result["method"], f"{result['mean_score']:.3f}", f"{low:.3f} to {high:.3f}",
            str(len(result["seed_scores"])), outcome(result, event["recommended"]),
        )  # fmt: skip
        parts[-1] += f"\n| {' | '.join(cells)} |"
    difference = event["minimum_detectable_difference"]
    resolution = f"{event['rows']:,} test rows; least significant difference {difference:.3f} ({level} level)."
    return "\n\n".join([*parts, resolution, "The whole report is among the artifacts: `report.html`."])


def mean_scores(result: Mapping[str, Any]) -> dict[str, float]:
    """Return the mean over a method's seeds with its interval, and those of the metrics that are recorded beside it."""
    low, high = result["interval"]
    others = {
        f"{name}_{end}": value
        for name, scores in result.get("other_scores", {}).items()
        for end, value in zip(("mean", "low", "high"), scores, strict=True)
    }
    return {"mean_score": result["mean_score"], "mean_low": low, "mean_high": high, **others}


def no_better(event: Event) -> list[str]:
    """Return that no method was better than the best trivial predictor, if that is so."""
    baselines = event.get("baselines") or ()
    best = next(result for result in event["finalists"] if result["method"] == event["recommended"])
    lead = best.get("baseline_lead")
    if not baselines or lead is None or lead[1] > 0:
        return []
    return [f"**No method was better than {baselines[0]['name']}** ({event['metric']} {baselines[0]['score']:.3f})."]
