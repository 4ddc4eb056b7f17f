"""A person's word on who is champion, by the names that people type."""

from __future__ import annotations

from typing import Any

from orchestrator.common.errors import InputError, Problem
from orchestrator.tracking.aliases import promote, rollback
from orchestrator.tracking.browse import find_model, find_version, reaching
from orchestrator.tracking.connection import retry_while_away
from orchestrator.tracking.promotion_policy import Titles
from orchestrator.tracking.promotion_policy import titles as decide
from orchestrator.tracking.versions import candidates

PATIENCE = 20.0


def promote_model(reference: str, tracking_uri: str) -> dict[str, Any]:
    """Make a version the champion.

    Args:
        reference: ``NAME@ALIAS`` or ``NAME/VERSION``.
        tracking_uri: where models are.

    Returns:
        ``name``; ``was``, the champion until now; ``champion``, ``challenger`` and ``before``, versions or ``None``.

    Raises:
        InputError: if there is no such version.
        SweepError: if MLflow cannot be reached.
    """
    client, version = find_version(reference, tracking_uri)
    number = int(version.version)
    with reaching(tracking_uri):
        was = decide(candidates(client, version.name))
        if was is None or "trial_key" not in version.tags:
            raise InputError(reference, [Problem("", "was registered by another program than a sweep")])
        found = retry_while_away(lambda: promote(client, version.name, number), PATIENCE)
    return _told(version.name, was.champion, found)


def rollback_model(name: str, tracking_uri: str) -> dict[str, Any]:
    """Give the title back to who held it before. Arguments, result and errors as in :func:`promote_model`."""
    if "@" in name or "/" in name:
        message = f"is a version; write the model's name alone: {name.replace('/', '@').partition('@')[0]}"
        raise InputError("models rollback", [Problem(name, message)])
    client = find_model(name, tracking_uri)
    with reaching(tracking_uri):
        was, found = rollback(client, name)
    return _told(name, was, found)


def _told(name: str, was: int, now: Titles) -> dict[str, Any]:
    return {
        "name": name,
        "was": was,
        "champion": now.champion,
        "challenger": now.challenger,
        "before": now.before,
    }
