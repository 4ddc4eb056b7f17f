"""Look at MLflow before a sweep is planned: a mistake in it would be told when all trials have been trained."""

from __future__ import annotations

import re
import socket
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path

from orchestrator.common.errors import InputError, Problem, short_line
from orchestrator.common.uris import mask_secrets
from orchestrator.tracking.connection import check_uri, database_file, host_of, is_database, is_missing, open_client

_REVISION = re.compile(r"^(down_)?revision = ['\"](\w+)['\"]", re.MULTILINE)
CONNECT_TIMEOUT_S = 10


def require_tracking(tracking_uri: str, registry_uri: str | None, experiment: str) -> None:
    """Check that MLflow answers and takes the sweep's runs; nothing is written.

    Args:
        tracking_uri: ``mlflow.tracking_uri`` of the configuration.
        registry_uri: ``mlflow.registry_uri``.
        experiment: name of the experiment, which need not exist.

    Raises:
        InputError: if it cannot be used, with the reason.
    """
    for key, uri in {"tracking_uri": tracking_uri, "registry_uri": registry_uri or tracking_uri}.items():
        if key == "registry_uri" and uri == tracking_uri:
            continue
        where = f"mlflow.{key}"
        check_uri(uri, where)
        find_problem = database_problem if is_database(uri) else _server_problem
        if problem := find_problem(uri, experiment):
            raise InputError(where, [Problem(mask_secrets(uri), problem)])


def database_problem(uri: str, experiment: str = "") -> str:
    """Return why a database cannot be used; empty if nothing is wrong with it, or its file is not there yet.

    It is read by SQL: MLflow takes seconds to import, writes tables, and tries to open a file that is none for minutes.

    Args:
        uri: URI of the database.
        experiment: name of an experiment that must not have been deleted.
    """
    import sqlalchemy
    from sqlalchemy.exc import SQLAlchemyError

    if (file := database_file(uri)) is not None and (not file.exists() or not file.stat().st_size):
        return ""
    try:
        with sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool).connect() as connection:
            tables = sqlalchemy.inspect(connection).get_table_names()
            if "alembic_version" not in tables:
                return "" if "experiments" not in tables else "is a database of another program, or of an old MLflow"
            (version,) = connection.execute(sqlalchemy.text("SELECT version_num FROM alembic_version")).one()
            if version not in revisions():
                return "is a database of a newer MLflow; install that MLflow, or write another file"
            if version != newest_revision():
                return f"is a database of an older MLflow; copy it, then run: mlflow db upgrade {mask_secrets(uri)}"
            query = sqlalchemy.text("SELECT experiment_id, lifecycle_stage FROM experiments WHERE name = :name")
            row = connection.execute(query, {"name": experiment}).first()
    except SQLAlchemyError as error:
        reason = mask_secrets(short_line(getattr(error, "orig", None) or error))
        return f"cannot be used ({reason}); write sqlite:///mlflow.db, or http://HOST:PORT of a server"
    return _deleted(experiment, str(row[0])) if row and row[1] == "deleted" else ""


def _server_problem(uri: str, experiment: str) -> str:
    try:
        if (host := host_of(uri)) is not None:  # a second less than to import MLflow, and a shorter reason
            socket.create_connection(host, CONNECT_TIMEOUT_S).close()
        found = open_client(uri).get_experiment_by_name(experiment)
    except Exception as error:  # of any kind: clients of other services than MLflow's own have errors of their own
        if is_missing(error):
            return ""
        reason = mask_secrets(getattr(error, "strerror", None) or short_line(error))
        if re.search(r"\b(401|403)\b|[Uu]nauthori[sz]ed|[Ff]orbidden", reason):
            hint = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            return f"lets nobody in without the right password ({reason}); {hint}"
        return f"cannot be reached ({reason}); start the server, or write sqlite:///mlflow.db"
    return _deleted(experiment, found.experiment_id) if found and found.lifecycle_stage == "deleted" else ""


def _deleted(experiment: str, number: str) -> str:
    return (
        f"its experiment {experiment!r} was deleted; write another mlflow.experiment, or bring it back with "
        f"mlflow experiments restore --experiment-id {number}"
    )


@cache
def revisions() -> dict[str, str]:
    """Return the revision before each revision of MLflow's tables that the installed release knows."""
    package = PathFinder.find_spec("mlflow")
    (folder,) = package.submodule_search_locations or [""] if package else [""]
    before: dict[str, str] = {}
    for file in (Path(folder) / "store" / "db_migrations" / "versions").glob("*.py"):
        found = dict(_REVISION.findall(file.read_text(encoding="utf-8")))
        if "" in found:
            before[found[""]] = found.get("down_", "")
    return before


def newest_revision() -> str:
    """Return the revision of the tables that the installed MLflow makes."""
    (newest,) = set(revisions()) - set(revisions().values())
    return newest
