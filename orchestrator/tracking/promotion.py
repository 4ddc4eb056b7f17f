"""Promotion and rollback of registered models, by the references that users type."""

from __future__ import annotations

from typing import Any

from orchestrator.common.errors import InputError, Problem
from orchestrator.tracking.aliases import promote, rollback
from orchestrator.tracking.browse import find_model, find_version, reaching
from orchestrator.tracking.connection import retry_while_away
from orchestrator.tracking.promotion_policy import AliasHolders, alias_holders
from orchestrator.tracking.versions import scored_versions

RETRY_TIMEOUT_S = 20.0


def promote_model(reference: str, tracking_uri: str) -> dict[str, Any]:
    """Make a version the champion.

    Args:
        reference: ``NAME@ALIAS`` or ``NAME/VERSION``.
        tracking_uri: MLflow's URI.

    Returns:
        ``name``; ``was``, the champion until now; ``champion``, ``challenger`` and ``before``, the previous champion;
        versions, or ``None``.

    Raises:
        InputError: if there is no such version.
        SweepError: if MLflow cannot be reached.
    """
    client, version = find_version(reference, tracking_uri)
    number = int(version.version)
    with reaching(tracking_uri):
        before = alias_holders(scored_versions(client, version.name))
        if "trial_key" not in version.tags:
            raise InputError(reference, [Problem("", "was not registered by a sweep")])
        after = retry_while_away(lambda: promote(client, version.name, number), RETRY_TIMEOUT_S)
    return _change(version.name, before.champion if before else None, after)


def rollback_model(name: str, tracking_uri: str) -> dict[str, Any]:
    """Make the previous champion the champion again. Arguments, result and errors as in :func:`promote_model`."""
    if "@" in name or "/" in name:
        message = f"is a version; write the model's name alone: {name.replace('/', '@').partition('@')[0]}"
        raise InputError("models rollback", [Problem(name, message)])
    client = find_model(name, tracking_uri)
    with reaching(tracking_uri):
        was, after = rollback(client, name)
    return _change(name, was, after)


def _change(name: str, was: int | None, holders: AliasHolders) -> dict[str, Any]:
    return {
        "name": name,
        "was": was,
        "champion": holders.champion,
        "challenger": holders.challenger,
        "before": holders.previous,
    }
