"""Connect to MLflow: a client for a tracking and a registry URI, checks of URIs, and kinds of errors."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from orchestrator.common.errors import InputError, Problem, SweepError, first_line
from orchestrator.common.uris import mask_secrets, masked_first_line

if TYPE_CHECKING:
    from mlflow import MlflowClient

T = TypeVar("T")
OnWait = Callable[[str, float], None]
_on_wait: ContextVar[OnWait] = ContextVar("on_wait", default=lambda reason, seconds: None)
SQLITE = "sqlite:///"
_SERVER_DATABASES = ("postgresql", "mysql", "mssql")

_SETTINGS = {
    # The client would repeat a request whose answer was lost, although the server may have carried it out: two runs or
    # versions would be created. Callers look for the tag of a run or version before they repeat its creation.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


def open_client(tracking_uri: str, registry_uri: str | None = None) -> MlflowClient:
    """Return a client that fails at once when the server cannot be reached; :func:`retry_while_away` repeats requests.

    The first use of a new sqlite file takes seconds, in which MLflow creates its tables.

    Args:
        tracking_uri: URI of runs and experiments.
        registry_uri: URI of registered models; the tracking URI if left out.

    Raises:
        MlflowException: if a database server does not answer, or refuses the user. MLflow itself would try for 100 s.
    """
    for uri in {tracking_uri, registry_uri or tracking_uri}:
        _require_database(uri)
    os.environ.update(_SETTINGS)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=tracking_uri, registry_uri=registry_uri or tracking_uri)


def check_uri(uri: str, where: str) -> None:
    """Check a tracking URI before anything is trained.

    Args:
        uri: URI of a tracking server or a database.
        where: the configuration key or option that contains it.

    Raises:
        InputError: if MLflow does not support the scheme, or the folder of a sqlite file is missing.
    """
    schemes = ("sqlite", "postgresql", "mysql", "mssql", "http", "https", "databricks", "uc", "databricks-uc")
    if _kind(uri) not in schemes or ("://" not in uri and "databricks" not in uri):
        message = "is not a URI that MLflow supports; write sqlite:///mlflow.db, or http://HOST:PORT of a server"
        raise InputError(where, [Problem(mask_secrets(uri), message)])
    if uri.startswith("http") and not host_of(uri):
        raise InputError(where, [Problem(mask_secrets(uri), "names no server; write http://HOST:PORT")])
    if uri.startswith("sqlite:") and not uri.removeprefix(SQLITE).strip("/"):
        raise InputError(where, [Problem(uri, "names no file; write sqlite:///mlflow.db")])
    if is_database_server(uri) and (problem := _database_problem(uri)):
        raise InputError(where, [Problem(mask_secrets(uri), problem)])
    if (file := database_file(uri)) is not None and not file.parent.is_dir():
        raise InputError(where, [Problem(uri, f"there is no folder {file.parent}")])


def host_of(uri: str) -> tuple[str, int] | None:
    """Return host and port of a server's URI; ``None`` if it names none."""
    try:
        parts = urlsplit(uri)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:  # of a port that is no number, or a bracket that is not closed
        return None
    return (parts.hostname, port) if parts.hostname else None


def is_database_server(uri: str) -> bool:
    """Return whether MLflow is to write to a database server itself, without a tracking server before it."""
    return _kind(uri) in _SERVER_DATABASES


def is_database(uri: str) -> bool:
    """Return whether MLflow is to write to a database itself, a file or a server."""
    return _kind(uri) == "sqlite" or is_database_server(uri)


def _kind(uri: str) -> str:
    """Return a URI's scheme without the driver of a database."""
    return uri.partition(":")[0].partition("+")[0]


def _database_problem(uri: str) -> str:
    """Return why a database cannot be connected to at all; empty if it may."""
    from sqlalchemy import create_engine
    from sqlalchemy.exc import NoSuchModuleError, SQLAlchemyError

    try:
        create_engine(uri)
    except (ImportError, NoSuchModuleError) as error:
        return f"needs a package that is not installed ({first_line(error)})"
    except (SQLAlchemyError, ValueError):
        return "is not a URI of a database; write postgresql+psycopg://USER:PASSWORD@HOST:PORT/DATABASE"
    return ""


def _require_database(uri: str) -> None:
    """Connect to a database server once, since MLflow tries a first connection again and again."""
    if not is_database_server(uri):
        return
    from mlflow.exceptions import MlflowException
    from sqlalchemy import NullPool, create_engine
    from sqlalchemy.exc import SQLAlchemyError

    try:
        create_engine(uri, poolclass=NullPool).connect().close()
    except SQLAlchemyError as error:
        raise MlflowException(masked_first_line(error)) from error


def database_file(uri: str) -> Path | None:
    """Return the file of a sqlite URI; ``None`` for any other URI."""
    return Path(uri.removeprefix(SQLITE)).absolute() if uri.startswith(SQLITE) else None


def artifact_location(tracking_uri: str, experiment: str) -> str | None:
    """Return the artifact folder of an experiment: beside its sqlite file; ``None`` where a server decides.

    MLflow's default is ``mlruns`` in the working directory, which would spread the artifacts of one database over the
    folders from which commands were run.
    """
    file = database_file(tracking_uri)
    return None if file is None else str(file.parent / "mlruns" / re.sub(r"[^\w.-]", "_", experiment))


_REFUSALS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")
_PERMANENT = (
    *_REFUSALS,
    "RESOURCE_DOES_NOT_EXIST",
    "NOT_FOUND",
    "RESOURCE_ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "UNAUTHENTICATED",
    "INVALID_STATE",
)


def is_refusal(error: Exception) -> bool:
    """Return whether the request itself is invalid, so that repeating it cannot succeed."""
    return getattr(error, "error_code", "") in _REFUSALS


def exists_already(error: Exception) -> bool:
    """Return whether a request failed because the name is taken."""
    return getattr(error, "error_code", "") == "RESOURCE_ALREADY_EXISTS"


def is_missing(error: Exception) -> bool:
    """Return whether a request failed because the name does not exist."""
    return getattr(error, "error_code", "") in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND")


def retry_while_away(step: Callable[[], T], seconds: float = 300, pause: float = 2) -> T:
    """Call a function that is safe to repeat until the server can be reached.

    Args:
        step: function to call.
        seconds: time after which to give up, in seconds.
        pause: time between two calls, in seconds.

    Returns:
        The result of the function.

    Raises:
        SweepError: if the server refused the request, or could not be reached in that time.
    """
    from mlflow.exceptions import MlflowException

    end = time.monotonic() + seconds
    while True:
        try:
            return step()
        except (MlflowException, OSError) as error:
            if getattr(error, "error_code", "") in _PERMANENT or time.monotonic() + pause > end:
                raise SweepError(f"MLflow: {masked_first_line(error)}") from error
            _on_wait.get()(masked_first_line(error), end - time.monotonic())
        time.sleep(pause)


@contextmanager
def waits_are_told(tell: OnWait) -> Iterator[None]:
    """Call a function whenever a request of this thread fails and is tried again.

    Args:
        tell: function that gets why it failed, and for how many seconds it is still tried. It may raise an error to end
            that.
    """
    token = _on_wait.set(tell)
    try:
        yield
    finally:
        _on_wait.reset(token)
