"""How MLflow is reached: one client for a tracking and a registry URI, and what to make of its errors."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from orchestrator.common.errors import InputError, Problem, SweepError, first_line
from orchestrator.common.uris import mask_secrets

if TYPE_CHECKING:
    from mlflow import MlflowClient

T = TypeVar("T")
SQLITE = "sqlite:///"

_SETTINGS = {
    # A request whose answer was lost may have been carried out: creating is not repeated blindly by the client but
    # looked up by tag first, by us.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


def open_client(tracking_uri: str, registry_uri: str | None = None) -> MlflowClient:
    """A client that fails at once where the server is away, so that its caller decides how long to try.

    The first use of a new sqlite file takes seconds: MLflow builds its tables.
    """
    os.environ.update(_SETTINGS)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=tracking_uri, registry_uri=registry_uri or tracking_uri)


def check_uri(uri: str, where: str) -> None:
    """Refuse what MLflow would refuse, before anything is trained.

    Args:
        uri: of a tracking server or a database.
        where: the key or option that it stands in.

    Raises:
        InputError: if MLflow knows no such place, or a sqlite file has no folder.
    """
    schemes = ("sqlite", "postgresql", "mysql", "mssql", "http", "https", "databricks", "uc", "databricks-uc")
    if uri.partition(":")[0].partition("+")[0] not in schemes or ("://" not in uri and "databricks" not in uri):
        message = "is no place that MLflow knows; write sqlite:///mlflow.db, or http://HOST:PORT of a server"
        raise InputError(where, [Problem(mask_secrets(uri), message)])
    if (file := database_file(uri)) is not None and not file.parent.is_dir():
        raise InputError(where, [Problem(uri, f"there is no folder {file.parent}")])


def database_file(uri: str) -> Path | None:
    """The file of a sqlite URI, else ``None``."""
    return Path(uri.removeprefix(SQLITE)).absolute() if uri.startswith(SQLITE) else None


def artifact_location(tracking_uri: str, experiment: str) -> str | None:
    """Where an experiment's artifacts go: beside a sqlite file, wherever we run; ``None`` where a server decides."""
    file = database_file(tracking_uri)
    return None if file is None else str(file.parent / "mlruns" / re.sub(r"[^\w.-]", "_", experiment))


_REFUSALS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")
_LASTING = (
    *_REFUSALS,
    "RESOURCE_DOES_NOT_EXIST",
    "NOT_FOUND",
    "RESOURCE_ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "UNAUTHENTICATED",
    "INVALID_STATE",
)


def is_refusal(error: Exception) -> bool:
    """Whether the request is wrong in itself and would be refused again, whatever else happens meanwhile."""
    return getattr(error, "error_code", "") in _REFUSALS


def exists_already(error: Exception) -> bool:
    """Whether something of that name had been created before."""
    return getattr(error, "error_code", "") == "RESOURCE_ALREADY_EXISTS"


def is_missing(error: Exception) -> bool:
    """Whether there is nothing of that name."""
    return getattr(error, "error_code", "") in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND")


def masked_first_line(error: Exception) -> str:
    """An error as it is shown, without the secrets that URIs may carry."""
    return mask_secrets(first_line(error))


def retry_while_away(step: Callable[[], T], seconds: float = 300, pause: float = 2) -> T:
    """Do something that is safe to repeat, again and again while the server is away.

    Args:
        step: what to do.
        seconds: how long to go on trying.
        pause: seconds between two tries.

    Raises:
        SweepError: if it was refused, or failed for that long.
    """
    from mlflow.exceptions import MlflowException

    end = time.monotonic() + seconds
    while True:
        try:
            return step()
        except (MlflowException, OSError) as error:
            if getattr(error, "error_code", "") in _LASTING or time.monotonic() + pause > end:
                raise SweepError(f"MLflow: {masked_first_line(error)}") from error
        time.sleep(pause)
