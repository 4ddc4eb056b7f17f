"""What rank 0 hears from the broker, as JSON for the other workers of its lane."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from orchestrator.common.trial_types import Job, TrialKey
from orchestrator.engine.ranks import Ranks
from orchestrator.lanes.broker import Signal

Heard = Job | Signal | None


def for_all(ranks: Ranks, heard: Heard) -> Heard:
    """What rank 0 heard, on all ranks; what the others pass is not looked at."""
    return heard if ranks.size == 1 else read(ranks.leaders(written(heard)))


def written(heard: Heard) -> Any:
    """A job, a signal or nothing as JSON."""
    if isinstance(heard, Signal):
        return heard.name
    if heard is None:
        return None
    return {field.name: getattr(heard, field.name) for field in fields(heard)} | {"trial": str(heard.trial)}


def read(value: Any) -> Heard:
    """The inverse of :func:`written`."""
    if isinstance(value, dict):
        return Job(**{**value, "trial": TrialKey.parse(value["trial"])})
    return None if value is None else Signal[value]
