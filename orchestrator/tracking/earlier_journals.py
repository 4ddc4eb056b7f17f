"""Read the journals of earlier releases: the words that have changed, in the places where events had them.

What is new gets its name in the code alone; what is renamed gets a line here, so that a sweep of any release can be
resumed, reported and asked again.
"""

from __future__ import annotations

from typing import Any

RENAMED = {
    "facts": "measurements",
    "behind": "gap",
    "smallest_difference": "minimum_detectable_difference",
}
"""Today's keys by those of release 0.1."""


def in_todays_words(event: dict[str, Any]) -> dict[str, Any]:
    """Return an event with today's keys; one that has them already comes back as it is.

    Args:
        event: of a journal of any release. Free-form values, such as a configuration or a trial's parameters, are
            left alone.
    """
    renamed = _renamed(event)
    if isinstance(answer := renamed.get("answer"), dict):
        renamed["answer"] = _renamed(answer)
    for results in ("finalists", "others"):
        if isinstance(renamed.get(results), list):
            renamed[results] = [_renamed(result) for result in renamed[results]]
    return renamed


def _renamed(fields: dict[str, Any]) -> dict[str, Any]:
    return {RENAMED.get(key, key): value for key, value in fields.items()}
