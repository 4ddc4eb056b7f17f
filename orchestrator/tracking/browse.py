"""Reading of the registry: lists of models, one version, and the comparison of two."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from orchestrator.common.errors import InputError, Problem, SweepError
from orchestrator.common.suggest import did_you_mean
from orchestrator.common.uris import mask_secrets, masked_first_line
from orchestrator.tracking.connection import check_uri, database_file, is_missing, open_client
from orchestrator.tracking.promotion_policy import Lead, ScoredVersion
from orchestrator.tracking.tracking_check import database_problem
from orchestrator.tracking.versions import CHAMPION, aliases, in_todays_tags, names, scored_version, versions

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion


def list_models(tracking_uri: str, registry_uri: str | None = None) -> list[dict[str, Any]]:
    """Return every version that a sweep has registered: ``name``, ``version``, ``aliases``, ``tags``; newest first."""
    uri = registry_uri or tracking_uri
    if (client := _existing(uri)) is None:
        return []
    models = []
    with reaching(uri):
        for name in names(client):
            holders = aliases(client, name)
            for version in sorted(versions(client, name), key=lambda v: -int(v.version)):
                models.append(_summary(version, holders))
    return models


def show_model(reference: str, tracking_uri: str, registry_uri: str | None = None) -> dict[str, Any]:
    """Return one version with its card.

    Args:
        reference: ``NAME@ALIAS``, ``NAME/VERSION``, or ``NAME`` for its champion.
        tracking_uri: MLflow's tracking URI.
        registry_uri: MLflow's registry URI; the tracking URI if left out.

    Returns:
        ``name``, ``version``, ``aliases``, ``tags``, ``description``, ``run_id``, ``created`` (seconds since 1970) and
        ``uri``.

    Raises:
        InputError: if there is no such model; the message lists the known ones.
        SweepError: if MLflow cannot be reached.
    """
    client, version = find_version(reference, tracking_uri, registry_uri)
    with reaching(registry_uri or tracking_uri):
        return {
            **_summary(version, aliases(client, version.name)),
            "description": version.description or "",
            "run_id": version.run_id,
            "created": version.creation_timestamp / 1000,
            "uri": f"models:/{version.name}/{version.version}",
        }


def compare_models(first: str, second: str, tracking_uri: str, registry_uri: str | None = None) -> dict[str, Any]:
    """Compare two versions by their recorded scores.

    Returns:
        ``first`` and ``second`` as in :func:`list_models`; ``lead``, by how much the first is better, as
        ``difference``, ``low`` and ``high`` (bounds) in units of the metric, ``level`` of the bounds and whether theirs
        is higher (``at_least``), ``None`` where the two are not comparable; ``better``, ``"first"``, ``"second"``, or
        ``None`` where the difference is not significant; ``reason``, one sentence.

    Raises:
        InputError: if there is no such model.
        SweepError: if MLflow cannot be reached.
    """
    shown = [show_model(reference, tracking_uri, registry_uri) for reference in (first, second)]
    version, other = (scored_version(model["version"], model["tags"]) for model in shown)
    lead = version.lead(other) if version.is_comparable(other) else None
    better = None if lead is None else "first" if lead.low > 0 else "second" if lead.high < 0 else None
    labels = [f"{model['name']}/{model['version']}" for model in shown]
    keys = ("name", "version", "aliases", "tags")
    return {
        "first": {key: shown[0][key] for key in keys},
        "second": {key: shown[1][key] for key in keys},
        "lead": lead and asdict(lead),
        "better": better,
        "reason": _verdict(version, other, lead, labels),
    }


def find_version(
    reference: str, tracking_uri: str, registry_uri: str | None = None
) -> tuple[MlflowClient, ModelVersion]:
    """Return the version that a reference names. Arguments and errors as in :func:`show_model`."""
    from mlflow.exceptions import MlflowException

    uri = registry_uri or tracking_uri
    client = _existing(uri)
    if client is None:
        raise InputError(
            reference, [Problem("", f"nothing is registered in {mask_secrets(uri)} yet")], "run a sweep first"
        )
    name, separator, which = reference.replace("/", "@").partition("@")
    with reaching(uri):
        try:
            if separator and which.isdecimal():
                return client, client.get_model_version(name, which)
            return client, client.get_model_version_by_alias(name, which or CHAMPION)
        except MlflowException as error:
            if not is_missing(error) and getattr(error, "error_code", "") != "INVALID_PARAMETER_VALUE":
                raise
            raise _unknown(client, reference, name) from error


def find_model(name: str, tracking_uri: str, registry_uri: str | None = None) -> MlflowClient:
    """Return a client of the registry that holds a model. Arguments and errors as in :func:`show_model`."""
    client, _ = find_version(name, tracking_uri, registry_uri)
    return client


@contextmanager
def reaching(uri: str) -> Iterator[None]:
    """Report failures of MLflow inside as one line with its URI.

    Raises:
        SweepError: if MLflow fails inside.
    """
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError) as error:
        raise SweepError(f"MLflow at {mask_secrets(uri)}: {masked_first_line(error)}") from error


def _verdict(version: ScoredVersion, other: ScoredVersion, lead: Lead | None, labels: list[str]) -> str:
    if lead is None:
        if version.metric != other.metric:
            return f"Not comparable: scored by different metrics, {version.metric.name} and {other.metric.name}."
        return "Not comparable: trained and scored on different data."
    first, second = labels if lead.difference >= 0 else labels[::-1]
    low, high = (lead.low, lead.high) if lead.difference >= 0 else (-lead.high, -lead.low)
    difference = (
        f"{abs(lead.difference):.3f} [{low:.3f}, {high:.3f}] {version.metric.label} ({lead.level_text} interval)"
    )
    sentence = f"{first} is better than {second} by {difference}."
    return sentence if low > 0 else f"Not significant: {sentence}"


def _unknown(client: MlflowClient, reference: str, name: str) -> InputError:
    models = names(client)
    if name in models:
        with_alias = [f"{name}@{alias}" for alias in aliases(client, name)]
        listed = ", ".join([*with_alias, *(f"{name}/{v.version}" for v in versions(client, name))])
        return InputError(reference, [Problem("", f"there is no such version; known: {listed}")])
    return InputError(reference, [Problem("", f"there is no model of that name; {did_you_mean(name, models)}")])


def _existing(uri: str) -> MlflowClient | None:
    """Return a client; ``None`` where opening it would create an empty database."""
    check_uri(uri, "--tracking-uri")
    file = database_file(uri)
    if file is not None and not file.exists():
        return None
    if file is not None and (problem := database_problem(uri)):
        raise InputError("--tracking-uri", [Problem(mask_secrets(uri), problem)])
    return open_client(uri)


def _summary(version: ModelVersion, holders: Mapping[str, int]) -> dict[str, Any]:
    number = int(version.version)
    names_of_version = sorted(alias for alias, holder in holders.items() if holder == number)
    tags = in_todays_tags(version.tags)
    return {"name": version.name, "version": number, "aliases": names_of_version, "tags": tags}
