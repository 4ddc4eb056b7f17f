"""The model registry: a bundle becomes a version of its task's model, and gets the title that it has earned."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.tracking.aliases import apply_promotion_policy
from orchestrator.tracking.bundle import CARD, Bundle
from orchestrator.tracking.connection import exists_already, open_client, retry_while_away
from orchestrator.tracking.versions import CHALLENGER, CHAMPION, identity, tags_of, versions

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel


@dataclass(frozen=True)
class Registered:
    """A version in the registry, and what the gate said: champion, or challenger.

    The alias ``challenger`` itself is that of the newest recommended one.
    """

    name: str
    version: int
    alias: str

    @property
    def reference(self) -> str:
        """What a user asks for: ``NAME@champion``, or ``NAME/VERSION`` of a challenger, whose alias moves on."""
        return f"{self.name}@{self.alias}" if self.alias == CHAMPION else f"{self.name}/{self.version}"


def register(folder: Path, *, run_id: str, tracking_uri: str, registry_uri: str | None = None) -> Registered:
    """Register a bundle under its task's name, and let it challenge the champion.

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
    version = retry_while_away(lambda: _find_version(client, bundle))
    if version is None:
        model = retry_while_away(lambda: _upload(client, folder, bundle, run_id))
        card = (folder / CARD).read_text(encoding="utf-8")
        version = retry_while_away(lambda: _create_version(client, bundle, run_id, model, card))
    held = retry_while_away(lambda: apply_promotion_policy(client, bundle.task))
    return Registered(bundle.task, version, CHAMPION if held and held.champion == version else CHALLENGER)


def _find_version(client: MlflowClient, bundle: Bundle) -> int | None:
    own = identity(bundle).items()
    found = [int(v.version) for v in versions(client, bundle.task) if own <= v.tags.items()]
    return min(found, default=None)


def _upload(client: MlflowClient, folder: Path, bundle: Bundle, run_id: str) -> LoggedModel:
    """The logged model of a bundle; one that an earlier try left behind is completed."""
    from mlflow.entities import LoggedModelOutput
    from mlflow.entities.logged_model_status import LoggedModelStatus

    from orchestrator.tracking.packaging import save_pyfunc

    experiment = client.get_run(run_id).info.experiment_id
    asked = " and ".join(f"tags.{key} = '{value}'" for key, value in identity(bundle).items())
    left = client.search_logged_models([experiment], asked)
    logged = left[0] if left else client.create_logged_model(experiment, bundle.task, run_id, tags_of(bundle))
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
        bundle.task, model.artifact_location, run_id, tags_of(bundle), description=card, model_id=model.model_id
    )
    return int(made.version)


def _create_name(client: MlflowClient, bundle: Bundle) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(bundle.task, {"task_type": bundle.type}, f"Adapters for {bundle.task}.")
    except MlflowException as error:
        if not exists_already(error):
            raise
