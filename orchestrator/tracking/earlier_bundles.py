"""Translate the fields of bundles that earlier releases registered to today's names."""

from __future__ import annotations

from typing import Any

from orchestrator.tasks import TASK_TYPES


def in_todays_format(values: Any) -> Any:
    """Return the fields of a ``bundle.json`` in format 2; those of a later format, and what is none, come back as is.

    Format 1, of release 0.1, called both the kept checkpoint's score and, under ``comparison``, the mean over the seeds
    ``score``. It has no ``comparison`` where a bundle was not made by a sweep. A model read one ``column`` then: texts
    or prompts.
    """
    if not isinstance(values, dict):
        return values
    if "columns" not in values and str(values.get("type")) in TASK_TYPES:
        main_input = next(iter(TASK_TYPES[values["type"]].input_columns))
        values = {**values, "columns": {main_input: values.get("column", "text")}}
    values = {name: value for name, value in values.items() if name != "column"}
    if values.get("format") != 1:
        return values
    fields = {name: value for name, value in values.items() if name not in ("score", "comparison", "facts")}
    comparison = values.get("comparison")
    comparison = comparison if isinstance(comparison, dict) else {}
    fields |= {
        "format": 2,
        "mean_score": comparison.get("score", values.get("score")),
        "checkpoint_score": values.get("score"),
        "seed_scores": comparison.get("scores", [values.get("score")]),
        "measurements": values.get("facts", {}),
    }
    if comparison:
        fields["selection"] = {
            "recommended": comparison.get("recommended"),
            "reason": comparison.get("reason"),
            "tied": comparison.get("tied"),
            "runner_up": comparison.get("runner_up", ""),
            "runner_up_reason": comparison.get("runner_up_lost", ""),
        }
    return fields
