"""The broker's messages to a lane, as JSON from rank 0 to the other workers."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from orchestrator.common.trial_types import Job, TrialKey
from orchestrator.engine.ranks import Ranks
from orchestrator.lanes.broker import Signal

BrokerMessage = Job | Signal | None


def broadcast_message(ranks: Ranks, message: BrokerMessage) -> BrokerMessage:
    """Return rank 0's message on all ranks; the other ranks' arguments are ignored."""
    return message if ranks.size == 1 else message_from_json(ranks.broadcast_object(message_to_json(message)))


def message_to_json(message: BrokerMessage) -> Any:
    """Return a message as a JSON value."""
    if isinstance(message, Signal):
        return message.name
    if message is None:
        return None
    return {field.name: getattr(message, field.name) for field in fields(message)} | {"trial": str(message.trial)}


def message_from_json(value: Any) -> BrokerMessage:
    """Return the message of a JSON value that :func:`message_to_json` made."""
    if isinstance(value, dict):
        return Job(**{**value, "trial": TrialKey.parse(value["trial"])})
    return None if value is None else Signal[value]
