"""Translate the fields of bundles that earlier releases registered to today's names."""

from __future__ import annotations

from typing import Any

from orchestrator.tasks import TASK_TYPES


def in_todays_format(values: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a ``bundle.json`` in format 2; those of a later format come back as they are.

    Format 1, of release 0.1, called both the kept checkpoint's score and, under ``comparison``, the mean over the seeds
    ``score``. It has no ``comparison`` where a bundle was not made by a sweep. A model read one ``column`` then: texts
    or prompts.
    """
    if "columns" not in values and values.get("type") in TASK_TYPES:
        main_input = next(iter(TASK_TYPES[values["type"]].input_columns))
        values = {**values, "columns": {main_input: values.get("column", "text")}}
    values = {name: value for name, value in values.items() if name != "column"}
    if values.get("format") != 1:
        return values
    fields = {name: value for name, value in values.items() if name not in ("score", "comparison", "facts")}
    comparison = values.get("comparison") or {}
    fields |= {
        "format": 2,
        "mean_score": comparison.get("score", values.get("score")),
        "checkpoint_score": values.get("score"),
        "seed_scores": comparison.get("scores", [values.get("score")]),
        "measurements": values.get("facts", {}),
    }
    if comparison:
        fields["selection"] = {
            "recommended": comparison["recommended"],
            "reason": comparison["reason"],
            "tied": comparison["tied"],
            "runner_up": comparison.get("runner_up", ""),
            "runner_up_reason": comparison.get("runner_up_lost", ""),
        }
    return fields
