"""Registration of a bundle as a version of its task's model, with the alias that the promotion policy gives it."""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.common.errors import SweepError
from orchestrator.common.uris import masked_first_line
from orchestrator.tracking.aliases import apply_promotion_policy
from orchestrator.tracking.bundle import CARD, EVALUATION, Bundle
from orchestrator.tracking.connection import (
    exists_already,
    is_missing,
    open_client,
    retry_while_away,
)
from orchestrator.tracking.evaluation import DIGEST, ROWS_TAG
from orchestrator.tracking.modelcard import VERSION, with_version
from orchestrator.tracking.run_values import clean
from orchestrator.tracking.tables import list_tables
from orchestrator.tracking.version_page import description, page_links
from orchestrator.tracking.versions import CHALLENGER, CHAMPION, aliases, identity, tags_of, versions

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion

CARD_FOLDER = "artifacts/bundle"
"""The bundle's place in the files of a logged model."""


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


def register(
    folder: Path,
    *,
    run_id: str,
    tracking_uri: str,
    registry_uri: str | None = None,
    parent_run_id: str | None = None,
) -> Registered:
    """Register a bundle under its task's name, and apply the promotion policy.

    Registering it again changes nothing: the version is found by its sweep and trial.

    Args:
        folder: folder of the bundle.
        run_id: MLflow run that the model belongs to: that of its trial, where there is one.
        tracking_uri: MLflow's tracking URI.
        registry_uri: MLflow's registry URI; the tracking URI if left out.
        parent_run_id: run whose page shows the model too.

    Raises:
        SweepError: if MLflow refuses, or cannot be reached for minutes, or if an alias of the model is on a version
            that no sweep has registered.
    """
    bundle, card = Bundle.read(folder), (folder / CARD).read_text(encoding="utf-8")
    client = retry_while_away(lambda: open_client(tracking_uri, registry_uri))
    version = retry_while_away(lambda: _find_version(client, bundle))
    if version is None:
        retry_while_away(lambda: _refuse_aliases_of_others(client, bundle.task))
        model = retry_while_away(lambda: _upload(client, folder, bundle, run_id, parent_run_id))
        tags = {**tags_of(bundle), ROWS_TAG: "true" if _carries_rows(folder) else "false"}
        version = retry_while_away(lambda: _create_version(client, bundle, run_id, model, card, tags))
    number = int(version.version)
    retry_while_away(lambda: _link(client, bundle, version, card, parent_run_id))
    holders = retry_while_away(lambda: apply_promotion_policy(client, bundle.task))
    if holders and holders.champion == number:
        return Registered(bundle.task, number, CHAMPION)
    return Registered(bundle.task, number, "" if bundle.trivial and not bundle.trivial.is_beaten else CHALLENGER)


def _refuse_aliases_of_others(client: MlflowClient, name: str) -> None:
    """Leave a model alone whose aliases others have set: the promotion policy knows nothing of their versions."""
    try:
        held = aliases(client, name)
    except Exception as error:
        if is_missing(error):
            return
        raise
    own = {int(version.version) for version in versions(client, name)}
    for alias in (CHAMPION, CHALLENGER):
        if alias in held and held[alias] not in own:
            others = f"its alias {alias} is on version {held[alias]}, which no sweep has registered"
            raise SweepError(f"the registered model {name} belongs to others: {others}; rename it in MLflow")


def _find_version(client: MlflowClient, bundle: Bundle) -> ModelVersion | None:
    tags = identity(bundle).items()
    same = [version for version in versions(client, bundle.task) if tags <= version.tags.items()]
    return min(same, key=lambda version: int(version.version), default=None)


def _upload(client: MlflowClient, folder: Path, bundle: Bundle, run_id: str, parent_run_id: str | None) -> LoggedModel:
    """Upload a bundle as a logged model; one that an earlier attempt left incomplete is completed."""
    from mlflow.entities import LoggedModelOutput
    from mlflow.entities.logged_model_status import LoggedModelStatus

    experiment = client.get_run(run_id).info.experiment_id
    logged = _find_model(client, experiment, bundle) or _create_model(client, experiment, bundle, run_id)
    with tempfile.TemporaryDirectory() as folder_of_model:
        target = Path(folder_of_model) / "model"
        _save(folder, target, run_id=run_id, model_id=logged.model_id)
        client.log_model_artifacts(logged.model_id, str(target))
    _log_tables(client, folder, run_id)
    client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
    _log_metrics(client, bundle, run_id, logged)
    for run in filter(None, (run_id, parent_run_id)):
        outputs = client.get_run(run).outputs
        known = {output.model_id for output in outputs.model_outputs} if outputs else set()
        if logged.model_id not in known:  # MLflow refuses an output for good that an earlier attempt has logged
            client.log_outputs(run, [LoggedModelOutput(logged.model_id, step=0)])
    return logged


def _save(folder: Path, target: Path, *, run_id: str, model_id: str) -> None:
    """Write a bundle as a model of MLflow. No server takes part, so that another attempt would fail alike.

    Raises:
        SweepError: if MLflow refuses the bundle.
    """
    from mlflow.exceptions import MlflowException

    from orchestrator.tracking.packaging import save_pyfunc

    try:
        save_pyfunc(folder, target, run_id=run_id, model_id=model_id)
    except MlflowException as error:
        raise SweepError(f"the model could not be packaged: {masked_first_line(error)}") from error


def _find_model(client: MlflowClient, experiment: str, bundle: Bundle) -> LoggedModel | None:
    query = " and ".join(f"tags.{key} = '{value}'" for key, value in identity(bundle).items())
    return next(iter(client.search_logged_models([experiment], query)), None)


def _create_model(client: MlflowClient, experiment: str, bundle: Bundle, run_id: str) -> LoggedModel:
    """Create a logged model, named so that a list of models tells them apart."""
    name = re.sub(r"[^\w-]+", "-", f"{bundle.task}-{bundle.method}-{bundle.trial_key.number}")
    params = {key: json.dumps(value) if not isinstance(value, str) else value for key, value in bundle.params.items()}
    return client.create_logged_model(experiment, name, run_id, tags_of(bundle), params)


def _log_metrics(client: MlflowClient, bundle: Bundle, run_id: str, model: LoggedModel) -> None:
    """Log the scores on the test split as those of the model, whose page shows no others."""
    from mlflow.entities import Metric

    low, high = bundle.interval
    scores = {"mean_score": bundle.mean_score, "mean_low": low, "mean_high": high}
    scores |= {"checkpoint_score": bundle.checkpoint_score}
    scores |= {f"test_{name}": value for name, value in bundle.metrics.items()}
    of_model = {"model_id": model.model_id, "dataset_name": bundle.task, "dataset_digest": bundle.data_digest[:36]}
    stamp = model.creation_timestamp  # the same when an attempt is repeated
    client.log_batch(run_id, [Metric(clean(name), score, stamp, 0, **of_model) for name, score in scores.items()])


def _log_tables(client: MlflowClient, folder: Path, run_id: str) -> None:
    """Show the tables of a bundle on the page of its trial, where MLflow's evaluation view finds them too."""
    tables = sorted((folder / EVALUATION).parent.glob("*.json"))
    for table in tables:
        client.log_artifact(run_id, str(table))
    list_tables(client, run_id, [table.name for table in tables])


def _carries_rows(folder: Path) -> bool:
    from pyarrow import parquet

    return DIGEST not in parquet.read_schema(folder / EVALUATION).names


def _create_version(
    client: MlflowClient, bundle: Bundle, run_id: str, model: LoggedModel, card: str, tags: dict[str, str]
) -> ModelVersion:
    if (version := _find_version(client, bundle)) is not None:
        return version
    _create_name(client, bundle)
    # The source is given as a location: MLflow would look an id up on the process's default tracking server.
    return client.create_model_version(
        bundle.task, model.artifact_location, run_id, tags, description=description(card), model_id=model.model_id
    )


def _link(client: MlflowClient, bundle: Bundle, version: ModelVersion, card: str, parent_run_id: str | None) -> None:
    """Write the version's number into its card, links on its page, and its version on the logged model's page.

    MLflow's own ``register_model`` sets that tag; the client's ``create_model_version`` does not.
    """
    from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

    number, run_id = int(version.version), version.run_id
    if f"/{VERSION}" not in (version.description or "") or run_id is None:
        return
    card = with_version(card, number)
    experiment = client.get_run(run_id).info.experiment_id
    if model := _find_model(client, experiment, bundle):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / CARD).write_text(card, encoding="utf-8")
            client.log_model_artifact(model.model_id, str(Path(folder) / CARD), CARD_FOLDER)
        listed = json.dumps([{"name": version.name, "version": str(number)}])
        client.set_logged_model_tags(model.model_id, {MLFLOW_MODEL_VERSIONS: listed})
    # Links are relative to MLflow's address, where the description is read, and not the file.
    links = page_links(experiment, bundle.trial, run_id, bundle.sweep, parent_run_id, model.model_id if model else None)
    client.update_model_version(version.name, str(number), description(card, links))  # last: it says that all is done


def _create_name(client: MlflowClient, bundle: Bundle) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(bundle.task, {"task_type": bundle.type}, f"Adapters for {bundle.task}.")
    except MlflowException as error:
        if not exists_already(error):
            raise
