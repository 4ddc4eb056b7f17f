"""The model registry: register a bundle, decide on its alias, list and show what is there."""

from __future__ import annotations

import difflib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import InputError, Problem
from orchestrator.tracking.bundle import CARD, Bundle
from orchestrator.tracking.connection import (
    check_uri,
    database_file,
    exists_already,
    is_missing,
    open_client,
    patiently,
)
from orchestrator.tracking.gate import Candidate, champion

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion

CHAMPION, CHALLENGER = "champion", "challenger"


@dataclass(frozen=True)
class Registered:
    """A version in the registry, and the alias it was given."""

    name: str
    version: int
    alias: str

    @property
    def reference(self) -> str:
        """What a user asks for: ``NAME@champion``, or ``NAME/VERSION`` of a challenger, whose alias moves on."""
        return f"{self.name}@{self.alias}" if self.alias == CHAMPION else f"{self.name}/{self.version}"


def register(folder: Path, *, run_id: str, tracking_uri: str, registry_uri: str | None = None) -> Registered:
    """Register a bundle under its task's name, and give it the alias that it has earned.

    Doing it again changes nothing: the version is found by its sweep and trial.

    Args:
        folder: the bundle's.
        run_id: the run that the model belongs to.
        tracking_uri: where the run is.
        registry_uri: where models go; the tracking URI if left out.

    Raises:
        SweepError: if MLflow refuses, or is away for minutes.
    """
    bundle, client = Bundle.read(folder), open_client(tracking_uri, registry_uri)
    version = patiently(lambda: _find_version(client, bundle))
    if version is None:
        model = patiently(lambda: _upload(client, folder, bundle, run_id))
        card = (folder / CARD).read_text(encoding="utf-8")
        version = patiently(lambda: _create_version(client, bundle, run_id, model, card))
    number = version
    return Registered(bundle.task, number, patiently(lambda: give_alias(client, bundle.task, number)))


def give_alias(client: MlflowClient, name: str, version: int) -> str:
    """Let a new version challenge the champion.

    There is no compare-and-swap for aliases. So everyone who registers sets what follows from all versions and reads
    again until nothing has changed meanwhile; whoever comes last sees everything.

    Returns:
        The version's alias.
    """
    while (holder := champion(candidates(client, name))) and _aliases(client, name).get(CHAMPION) != holder.version:
        client.set_registered_model_alias(name, CHAMPION, str(holder.version))
    if holder is None or holder.version != version:
        client.set_registered_model_alias(name, CHALLENGER, str(version))
        return CHALLENGER
    if _aliases(client, name).get(CHALLENGER) == version:
        client.delete_registered_model_alias(name, CHALLENGER)
    return CHAMPION


def candidates(client: MlflowClient, name: str) -> Iterator[Candidate]:
    """All versions that a sweep has registered under a name."""
    for version in _versions(client, name):
        tags = version.tags
        yield Candidate(
            int(version.version), float(tags["score"]), tags["metric"], tags["higher_is_better"] == "true",
            tags["data_digest"],
        )  # fmt: skip


def list_models(tracking_uri: str, registry_uri: str | None = None) -> list[dict[str, Any]]:
    """Every version that a sweep has registered: ``name``, ``version``, ``aliases``, ``tags``; newest first."""
    if (client := _existing(registry_uri or tracking_uri)) is None:
        return []
    found = []
    for name in _names(client):
        aliases = _aliases(client, name)
        for version in sorted(_versions(client, name), key=lambda v: -int(v.version)):
            found.append(_summary(version, aliases))
    return found


def show_model(reference: str, tracking_uri: str, registry_uri: str | None = None) -> dict[str, Any]:
    """One version: ``name``, ``version``, ``aliases``, ``tags``, ``description``, ``run_id``, ``created``, ``uri``.

    Args:
        reference: ``NAME@ALIAS``, ``NAME/VERSION``, or ``NAME`` for its champion.
        tracking_uri: as in the configuration.
        registry_uri: as in the configuration.

    Raises:
        InputError: if there is no such model; it names those that there are.
    """
    client, version = find_version(reference, tracking_uri, registry_uri)
    return {
        **_summary(version, _aliases(client, version.name)),
        "description": version.description or "",
        "run_id": version.run_id,
        "created": version.creation_timestamp / 1000,
        "uri": f"models:/{version.name}/{version.version}",
    }


def find_version(
    reference: str, tracking_uri: str, registry_uri: str | None = None
) -> tuple[MlflowClient, ModelVersion]:
    """The version that a reference names. Arguments and errors as in :func:`show_model`."""
    from mlflow.exceptions import MlflowException

    client = _existing(registry_uri or tracking_uri)
    if client is None:
        raise InputError(reference, [Problem("", "nothing is registered yet")], "run a sweep first")
    name, separator, which = reference.replace("/", "@").partition("@")
    try:
        if separator and which.isdigit():
            return client, client.get_model_version(name, which)
        return client, client.get_model_version_by_alias(name, which or CHAMPION)
    except MlflowException as error:
        if not is_missing(error) and getattr(error, "error_code", "") != "INVALID_PARAMETER_VALUE":
            raise
        raise _unknown(client, reference, name) from error


def _unknown(client: MlflowClient, reference: str, name: str) -> InputError:
    names = _names(client)
    if name in names:
        aliases = [f"{name}@{alias}" for alias in _aliases(client, name)]
        known = ", ".join([*aliases, *(f"{name}/{v.version}" for v in _versions(client, name))])
        return InputError(reference, [Problem("", f"there is no such version; known: {known}")])
    close = difflib.get_close_matches(name, names, 1)
    guess = f"did you mean {close[0]}?" if close else f"known: {', '.join(names) or 'none'}"
    return InputError(reference, [Problem("", f"there is no model of that name; {guess}")])


def _existing(uri: str) -> MlflowClient | None:
    """A client, unless it would have to make an empty database first."""
    check_uri(uri, "--tracking-uri")
    file = database_file(uri)
    return None if file is not None and not file.exists() else open_client(uri)


def _names(client: MlflowClient) -> list[str]:
    names, token = set(), None
    while True:
        page = client.search_registered_models(page_token=token)
        names |= {model.name for model in page}
        if not (token := page.token):
            return sorted(name for name in names if any(_versions(client, name)))


def _versions(client: MlflowClient, name: str) -> Iterator[ModelVersion]:
    token = None
    while True:
        page = client.search_model_versions(f"name = '{name}'", page_token=token)
        yield from (version for version in page if "trial_key" in version.tags)
        if not (token := page.token):
            return


def _aliases(client: MlflowClient, name: str) -> dict[str, int]:
    return {alias: int(version) for alias, version in client.get_registered_model(name).aliases.items()}


def _summary(version: ModelVersion, aliases: Mapping[str, int]) -> dict[str, Any]:
    number = int(version.version)
    own = sorted(alias for alias, holder in aliases.items() if holder == number)
    return {"name": version.name, "version": number, "aliases": own, "tags": dict(version.tags)}


def _identity(bundle: Bundle) -> dict[str, str]:
    return {"sweep": bundle.sweep, "trial_key": bundle.trial}


def _tags(bundle: Bundle) -> dict[str, str]:
    backbone = bundle.backbone
    return {
        **_identity(bundle),
        "task": bundle.task,
        "trial": str(bundle.trial_key.number),
        "method": bundle.method,
        "backbone": backbone.model,
        "backbone_digest": backbone.digest,
        "backbone_checksum": backbone.checksum,
        "quantization": backbone.quantization,
        "metric": bundle.metric,
        "higher_is_better": "true" if bundle.higher_is_better else "false",
        "score": repr(bundle.score),
        "interval_low": repr(bundle.interval[0]),
        "interval_high": repr(bundle.interval[1]),
        "data_digest": bundle.data_digest,
    }


def _find_version(client: MlflowClient, bundle: Bundle) -> int | None:
    own = _identity(bundle).items()
    found = [int(v.version) for v in _versions(client, bundle.task) if own <= v.tags.items()]
    return min(found, default=None)


def _upload(client: MlflowClient, folder: Path, bundle: Bundle, run_id: str) -> LoggedModel:
    """The logged model of a bundle; one that an earlier try left behind is completed."""
    from mlflow.entities import LoggedModelOutput
    from mlflow.entities.logged_model_status import LoggedModelStatus

    from orchestrator.tracking.packaging import save_pyfunc

    experiment = client.get_run(run_id).info.experiment_id
    asked = " and ".join(f"tags.{key} = '{value}'" for key, value in _identity(bundle).items())
    left = client.search_logged_models([experiment], asked)
    logged = left[0] if left else client.create_logged_model(experiment, bundle.task, run_id, _tags(bundle))
    with tempfile.TemporaryDirectory() as place:
        target = Path(place) / "model"
        save_pyfunc(folder, target, run_id=run_id, model_id=logged.model_id)
        client.log_model_artifacts(logged.model_id, str(target))
    client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    return logged


def _create_version(client: MlflowClient, bundle: Bundle, run_id: str, model: LoggedModel, card: str) -> int:
    if (found := _find_version(client, bundle)) is not None:
        return found
    _create_name(client, bundle)
    # Given by its place: by its id it would be looked for on the process's own tracking server.
    made = client.create_model_version(
        bundle.task, model.artifact_location, run_id, _tags(bundle), description=card, model_id=model.model_id
    )
    return int(made.version)


def _create_name(client: MlflowClient, bundle: Bundle) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(bundle.task, {"task_type": bundle.type}, f"Adapters for {bundle.task}.")
    except MlflowException as error:
        if not exists_already(error):
            raise
