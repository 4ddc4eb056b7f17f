"""A registered model's folder, brought here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from methods.families.compose_parts import methods_of
from methods.plugins.loader import PACKAGE as PLUGINS
from orchestrator.common.errors import SweepError
from orchestrator.config.plugins import method_with
from orchestrator.tracking.browse import find_version
from orchestrator.tracking.bundle import Bundle
from orchestrator.tracking.connection import masked_first_line


@dataclass(frozen=True)
class FetchedModel:
    """A registered model, as files.

    Args:
        reference: as it was asked for.
        name: of the model.
        version: of it.
        folder: its bundle's.
        bundle: what that says.
        plugins: files of the methods from outside that it needs; none of them has been run.
    """

    reference: str
    name: str
    version: int
    folder: Path
    bundle: Bundle
    plugins: tuple[Path, ...]

    def use_plugins(self) -> None:
        """Run the code of its plugins, so that their methods are known here.

        Raises:
            InputError: if a method of that name is here already, and is another.
        """
        method_with(self.bundle.method, self.plugins, self.reference)


def fetch_model(reference: str, place: Path, tracking_uri: str) -> FetchedModel:
    """Bring a registered model here.

    Args:
        reference: ``NAME@ALIAS``, ``NAME/VERSION``, or ``NAME`` for its champion.
        place: empty folder.
        tracking_uri: where models are.

    Raises:
        InputError: if there is no such model.
        SweepError: if it cannot be fetched.
    """
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    _, version = find_version(reference, tracking_uri)
    try:
        folder = Path(download_artifacts(version.source, dst_path=str(place), tracking_uri=tracking_uri))
    except (MlflowException, OSError) as error:
        raise SweepError(f"{reference} cannot be fetched: {masked_first_line(error)}") from error
    inside = folder / "artifacts" / "bundle"
    bundle = Bundle.read(inside)
    needed = methods_of(bundle.method)
    plugins = tuple(file for file in sorted((folder / "code" / PLUGINS).glob("*.py")) if file.stem in needed)
    return FetchedModel(reference, version.name, int(version.version), inside, bundle, plugins)
