"""Looking into the registry: what is there, what one version is, and which of two is better."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from orchestrator.common.errors import InputError, Problem, SweepError
from orchestrator.common.suggest import did_you_mean
from orchestrator.common.uris import mask_secrets
from orchestrator.tracking.connection import check_uri, database_file, is_missing, masked_first_line, open_client
from orchestrator.tracking.promotion_policy import Candidate, Lead
from orchestrator.tracking.versions import CHAMPION, aliases, candidate, names, versions

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion


def list_models(tracking_uri: str, registry_uri: str | None = None) -> list[dict[str, Any]]:
    """Every version that a sweep has registered: ``name``, ``version``, ``aliases``, ``tags``; newest first."""
    uri = registry_uri or tracking_uri
    if (client := _existing(uri)) is None:
        return []
    found = []
    with reaching(uri):
        for name in names(client):
            held = aliases(client, name)
            for version in sorted(versions(client, name), key=lambda v: -int(v.version)):
                found.append(_summary(version, held))
    return found


def show_model(reference: str, tracking_uri: str, registry_uri: str | None = None) -> dict[str, Any]:
    """One version: ``name``, ``version``, ``aliases``, ``tags``, ``description``, ``run_id``, ``created``, ``uri``.

    Args:
        reference: ``NAME@ALIAS``, ``NAME/VERSION``, or ``NAME`` for its champion.
        tracking_uri: as in the configuration.
        registry_uri: as in the configuration.

    Raises:
        InputError: if there is no such model; it names those that there are.
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
    """Two versions side by side, by what is recorded of them.

    Returns:
        ``first`` and ``second`` as in :func:`list_models`; ``lead``, by how much the first is better, as
        ``difference``, ``low`` and ``high`` in units of the metric, ``None`` where they cannot be compared; ``better``,
        ``"first"``, ``"second"`` or ``None`` where nothing is beyond doubt; ``reason``, one sentence.

    Raises:
        InputError: if there is no such model.
        SweepError: if MLflow cannot be reached.
    """
    shown = [show_model(reference, tracking_uri, registry_uri) for reference in (first, second)]
    one, other = (candidate(model["version"], model["tags"]) for model in shown)
    lead = one.lead(other) if one.comparable(other) else None
    better = None if lead is None else "first" if lead.low > 0 else "second" if lead.high < 0 else None
    called = [f"{model['name']}/{model['version']}" for model in shown]
    keys = ("name", "version", "aliases", "tags")
    return {
        "first": {key: shown[0][key] for key in keys},
        "second": {key: shown[1][key] for key in keys},
        "lead": lead and asdict(lead),
        "better": better,
        "reason": _verdict(one, other, lead, called),
    }


def find_version(
    reference: str, tracking_uri: str, registry_uri: str | None = None
) -> tuple[MlflowClient, ModelVersion]:
    """The version that a reference names. Arguments and errors as in :func:`show_model`."""
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
    """A client of the registry that holds a model. Arguments and errors as in :func:`show_model`."""
    client, _ = find_version(name, tracking_uri, registry_uri)
    return client


@contextmanager
def reaching(uri: str) -> Iterator[None]:
    """Say which place could not be reached, in one line.

    Raises:
        SweepError: if MLflow fails inside.
    """
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError) as error:
        raise SweepError(f"MLflow at {mask_secrets(uri)}: {masked_first_line(error)}") from error


def _verdict(one: Candidate, other: Candidate, lead: Lead | None, called: list[str]) -> str:
    if lead is None:
        if one.metric != other.metric:
            return f"They cannot be compared: one was scored by {one.metric}, the other by {other.metric}."
        return "They cannot be compared: they were trained and scored on different data."
    first, second = called if lead.difference >= 0 else called[::-1]
    low, high = (lead.low, lead.high) if lead.difference >= 0 else (-lead.high, -lead.low)
    by = f"{abs(lead.difference):.3f} [{low:.3f}, {high:.3f}] in {one.metric}"
    if low > 0:
        return f"{first} is better than {second} beyond doubt, by {by}."
    return f"They cannot be told apart: {first} is ahead of {second} by {by}."


def _unknown(client: MlflowClient, reference: str, name: str) -> InputError:
    known = names(client)
    if name in known:
        own = [f"{name}@{alias}" for alias in aliases(client, name)]
        listed = ", ".join([*own, *(f"{name}/{v.version}" for v in versions(client, name))])
        return InputError(reference, [Problem("", f"there is no such version; known: {listed}")])
    return InputError(reference, [Problem("", f"there is no model of that name; {did_you_mean(name, known)}")])


def _existing(uri: str) -> MlflowClient | None:
    """A client, unless it would have to make an empty database first."""
    check_uri(uri, "--tracking-uri")
    file = database_file(uri)
    return None if file is not None and not file.exists() else open_client(uri)


def _summary(version: ModelVersion, held: Mapping[str, int]) -> dict[str, Any]:
    number = int(version.version)
    own = sorted(alias for alias, holder in held.items() if holder == number)
    return {"name": version.name, "version": number, "aliases": own, "tags": dict(version.tags)}
