"""Download registered models."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from methods.families.compose_names import methods_of
from methods.plugins.loader import PACKAGE as PLUGINS
from orchestrator.common.errors import SweepError
from orchestrator.common.uris import masked_first_line
from orchestrator.config.plugins import method_with
from orchestrator.tracking.browse import find_version
from orchestrator.tracking.bundle import Bundle


@dataclass(frozen=True)
class FetchedModel:
    """A registered model that was downloaded.

    Args:
        reference: the reference that the user gave.
        name: name of the registered model.
        version: number of its version.
        folder: local folder of its bundle.
        bundle: contents of ``bundle.json``.
        plugins: files of the plugin methods that it needs; none of them has been run.
    """

    reference: str
    name: str
    version: int
    folder: Path
    bundle: Bundle
    plugins: tuple[Path, ...]

    def use_plugins(self) -> None:
        """Import the plugins and register their methods in this process.

        Raises:
            InputError: if a different method of that name is registered already.
        """
        method_with(self.bundle.method, self.plugins, self.reference)


def fetch_model(reference: str, target: Path, tracking_uri: str) -> FetchedModel:
    """Download a registered model.

    Args:
        reference: ``NAME@ALIAS``, ``NAME/VERSION``, or ``NAME`` for its champion.
        target: empty folder to download into.
        tracking_uri: MLflow's URI.

    Raises:
        InputError: if there is no such model.
        SweepError: if the download fails.
    """
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    _, version = find_version(reference, tracking_uri)
    try:
        folder = Path(download_artifacts(version.source, dst_path=str(target), tracking_uri=tracking_uri))
    except (MlflowException, OSError) as error:
        raise SweepError(f"{reference} cannot be downloaded: {masked_first_line(error)}") from error
    bundle_folder = folder / "artifacts" / "bundle"
    bundle = Bundle.read(bundle_folder)
    try:
        needed = methods_of(bundle.method)
    except ValueError as error:
        raise SweepError(f"{bundle_folder} cannot be used: {error}") from error
    plugins = tuple(file for file in sorted((folder / "code" / PLUGINS).glob("*.py")) if file.stem in needed)
    return FetchedModel(reference, version.name, int(version.version), bundle_folder, bundle, plugins)
