"""What rank 0 hears from the broker, as JSON for the other workers of its lane."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from orchestrator.common.trial_types import Job, TrialKey
from orchestrator.engine.ranks import Ranks
from orchestrator.lanes.broker import Signal

BrokerMessage = Job | Signal | None


def broadcast_message(ranks: Ranks, message: BrokerMessage) -> BrokerMessage:
    """What rank 0 heard, on all ranks; what the others pass is not looked at."""
    return message if ranks.size == 1 else read(ranks.broadcast_object(written(message)))


def written(message: BrokerMessage) -> Any:
    """A job, a signal or nothing as JSON."""
    if isinstance(message, Signal):
        return message.name
    if message is None:
        return None
    return {field.name: getattr(message, field.name) for field in fields(message)} | {"trial": str(message.trial)}


def read(value: Any) -> BrokerMessage:
    """The inverse of :func:`written`."""
    if isinstance(value, dict):
        return Job(**{**value, "trial": TrialKey.parse(value["trial"])})
    return None if value is None else Signal[value]
