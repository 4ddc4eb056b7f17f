"""Registration of a bundle as a version of its task's model, with the alias that the promotion policy gives it."""

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
    """A version in the registry, as ``champion`` or ``challenger``; ``alias`` is empty for one that may hold neither.

    MLflow's alias ``challenger`` points to the newest recommended version beside the champion, so a challenger does not
    always hold it.
    """

    name: str
    version: int
    alias: str

    @property
    def reference(self) -> str:
        """Reference for commands: ``NAME@champion``, or ``NAME/VERSION`` of a challenger, whose alias moves on."""
        return f"{self.name}@{self.alias}" if self.alias == CHAMPION else f"{self.name}/{self.version}"


def register(folder: Path, *, run_id: str, tracking_uri: str, registry_uri: str | None = None) -> Registered:
    """Register a bundle under its task's name, and apply the promotion policy.

    Registering it again changes nothing: the version is found by its sweep and trial.

    Args:
        folder: folder of the bundle.
        run_id: MLflow run that the model belongs to.
        tracking_uri: MLflow's tracking URI.
        registry_uri: MLflow's registry URI; the tracking URI if left out.

    Raises:
        SweepError: if MLflow refuses, or cannot be reached for minutes.
    """
    bundle, client = Bundle.read(folder), open_client(tracking_uri, registry_uri)
    version = retry_while_away(lambda: _find_version(client, bundle))
    if version is None:
        model = retry_while_away(lambda: _upload(client, folder, bundle, run_id))
        card = (folder / CARD).read_text(encoding="utf-8")
        version = retry_while_away(lambda: _create_version(client, bundle, run_id, model, card))
    holders = retry_while_away(lambda: apply_promotion_policy(client, bundle.task))
    if holders and holders.champion == version:
        return Registered(bundle.task, version, CHAMPION)
    return Registered(bundle.task, version, "" if bundle.trivial and not bundle.trivial.is_beaten else CHALLENGER)


def _find_version(client: MlflowClient, bundle: Bundle) -> int | None:
    tags = identity(bundle).items()
    return min((int(v.version) for v in versions(client, bundle.task) if tags <= v.tags.items()), default=None)


def _upload(client: MlflowClient, folder: Path, bundle: Bundle, run_id: str) -> LoggedModel:
    """Upload a bundle as a logged model; one that an earlier attempt left incomplete is completed."""
    from mlflow.entities import LoggedModelOutput
    from mlflow.entities.logged_model_status import LoggedModelStatus

    from orchestrator.tracking.packaging import save_pyfunc

    experiment = client.get_run(run_id).info.experiment_id
    query = " and ".join(f"tags.{key} = '{value}'" for key, value in identity(bundle).items())
    earlier = client.search_logged_models([experiment], query)
    logged = earlier[0] if earlier else client.create_logged_model(experiment, bundle.task, run_id, tags_of(bundle))
    with tempfile.TemporaryDirectory() as folder_of_model:
        target = Path(folder_of_model) / "model"
        save_pyfunc(folder, target, run_id=run_id, model_id=logged.model_id)
        client.log_model_artifacts(logged.model_id, str(target))
    client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    return logged


def _create_version(client: MlflowClient, bundle: Bundle, run_id: str, model: LoggedModel, card: str) -> int:
    if (number := _find_version(client, bundle)) is not None:
        return number
    _create_name(client, bundle)
    # The source is given as a location: MLflow would look an id up on the process's default tracking server.
    version = client.create_model_version(
        bundle.task, model.artifact_location, run_id, tags_of(bundle), description=card, model_id=model.model_id
    )
    return int(version.version)


def _create_name(client: MlflowClient, bundle: Bundle) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(bundle.task, {"task_type": bundle.type}, f"Adapters for {bundle.task}.")
    except MlflowException as error:
        if not exists_already(error):
            raise
