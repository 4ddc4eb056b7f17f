"""Translate keys in the events of earlier releases to today's names.

Only this module translates keys of events: when one is renamed, add it here, so that sweeps of any release can still be
resumed, reported and queried. Saved trial states are read in ``engine/trial_run.py``, bundles in
``tracking/earlier_bundles.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

RENAMED = {
    "facts": "measurements",
    "behind": "gap",
    "smallest_difference": "minimum_detectable_difference",
}
"""Today's keys by those of release 0.1, in every event."""
RENAMED_IN_RESULTS = {"score": "mean_score", "scores": "seed_scores"}
"""The same in the results of a ``selection`` event, where the score was the mean over the seeds."""
RENAMED_IN_TESTS = {"score": "checkpoint_score"}
"""The same in a ``test`` event, where the score was that of one checkpoint."""
RENAMED_IN_TRANSFERRED = {"standing": "rank"}
"""The same in the configurations of a ``warm_start`` event."""


def in_todays_words(event: dict[str, Any]) -> dict[str, Any]:
    """Return an event with today's keys; an event of this release comes back unchanged.

    Args:
        event: event of a journal of any release. Free-form values, such as a configuration or a trial's parameters,
            are left alone.
    """
    renamed = _renamed(event, RENAMED_IN_TESTS if event["event"] == "test" else MappingProxyType({}))
    if isinstance(answer := renamed.get("answer"), dict):
        renamed["answer"] = _renamed(answer)
    if event["event"] == "warm_start" and isinstance(renamed.get("configurations"), dict):
        renamed["configurations"] = {
            study: [_renamed(transferred, RENAMED_IN_TRANSFERRED) for transferred in configurations]
            for study, configurations in renamed["configurations"].items()
        }
    for results in ("finalists", "others"):
        if isinstance(renamed.get(results), list):
            renamed[results] = [_renamed(result, RENAMED_IN_RESULTS) for result in renamed[results]]
    return renamed


def _renamed(fields: dict[str, Any], names: Mapping[str, str] = MappingProxyType({})) -> dict[str, Any]:
    return {names.get(key, RENAMED.get(key, key)): value for key, value in fields.items()}
