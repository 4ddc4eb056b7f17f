"""Promotion and rollback of registered models, by the references that users type."""

from __future__ import annotations

from typing import Any

from orchestrator.common.errors import InputError, Problem
from orchestrator.tracking.aliases import promote, rollback
from orchestrator.tracking.browse import find_model, find_version, reaching
from orchestrator.tracking.connection import retry_while_away
from orchestrator.tracking.promotion_policy import AliasHolders, ScoredVersion, alias_holders
from orchestrator.tracking.versions import scored_versions

RETRY_TIMEOUT_S = 20.0


def promote_model(reference: str, tracking_uri: str, *, force: bool = False) -> dict[str, Any]:
    """Make a version the champion.

    Args:
        reference: ``NAME@ALIAS`` or ``NAME/VERSION``.
        tracking_uri: MLflow's URI.
        force: whether to promote it although its score is worse than the champion's.

    Returns:
        ``name``; ``was``, the champion until now; ``champion``, ``challenger`` and ``before``, the previous champion;
        versions, or ``None``; ``comparison``, both scores and what the promotion policy says, one sentence.

    Raises:
        InputError: if there is no such version, or its score is worse and it is not forced.
        SweepError: if MLflow cannot be reached.
    """
    client, version = find_version(reference, tracking_uri)
    number = int(version.version)
    with reaching(tracking_uri):
        scored = {each.version: each for each in scored_versions(client, version.name)}
        before = alias_holders(scored.values())
        if "trial_key" not in version.tags:
            raise InputError(reference, [Problem("", "was not registered by a sweep")])
        champion = scored[before.champion] if before else None
        comparison, is_worse = _compared(scored[number], champion, version.name) if champion else ("", False)
        if is_worse and not force:
            hint = f"to promote it all the same: peft-sweep models promote {version.name}/{number} --force"
            raise InputError(reference, [Problem("", comparison)], hint)
        after = retry_while_away(lambda: promote(client, version.name, number), RETRY_TIMEOUT_S)
    return {**_change(version.name, before.champion if before else None, after), "comparison": comparison}


def rollback_model(name: str, tracking_uri: str) -> dict[str, Any]:
    """Make the previous champion the champion again. Arguments, result and errors as in :func:`promote_model`."""
    if "@" in name or "/" in name:
        message = f"is a version; write the model's name alone: {name.replace('/', '@').partition('@')[0]}"
        raise InputError("models rollback", [Problem(name, message)])
    client = find_model(name, tracking_uri)
    with reaching(tracking_uri):
        was, after = rollback(client, name)
    return _change(name, was, after)


def _compared(version: ScoredVersion, champion: ScoredVersion, name: str) -> tuple[str, bool]:
    """Return both scores with what the promotion policy says of them, and whether the version's is worse."""
    if version.version == champion.version:
        return "", False
    scores = " and ".join(f"{name}/{each.version} has {_score(each)}" for each in (version, champion))
    if not version.is_comparable(champion):
        return f"{scores}: not comparable, since they were scored on other data or by another metric", False
    lead = version.lead(champion)
    size, label = abs(lead.difference), version.metric.label
    if lead.difference < 0:
        return f"{scores}: it is worse than the champion by {size:.3f} {label}", True
    policy = "which is significant" if lead.low > 0 else f"which is not significant at a level of {lead.level_text}"
    return f"{scores}: it is better than the champion by {size:.3f} {label}, {policy}", False


def _score(version: ScoredVersion) -> str:
    return f"{version.mean_score:.3f} [{version.interval[0]:.3f}, {version.interval[1]:.3f}]"


def _change(name: str, was: int | None, holders: AliasHolders) -> dict[str, Any]:
    return {
        "name": name,
        "was": was,
        "champion": holders.champion,
        "challenger": holders.challenger,
        "before": holders.previous,
    }
