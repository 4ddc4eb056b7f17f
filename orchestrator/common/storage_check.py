"""Look at a storage before a sweep is planned: a mistake in it would be told after the backbone was quantized."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

from pyarrow import fs

from orchestrator.common.errors import InputError, Problem, first_line, short_line
from orchestrator.common.storage import Storage
from orchestrator.common.uris import mask_secrets

LIMIT_S = 20.0
"""Seconds that an object store has to answer."""
RETRY_LIMIT_S = 5
"""Seconds for which Google's client tries again; by default that is a quarter of an hour."""
_WITH_BUCKETS = ("s3", "gs", "gcs")


def require_storage(storage: str) -> None:
    """Check that a folder can be written to, or that an object store answers; nothing is written.

    Args:
        storage: ``storage`` of the configuration.

    Raises:
        InputError: if it cannot be used, with the reason.
    """
    try:
        place = Storage.at(storage)
        problem = _folder_problem(Path(place.root)) if place.is_local else _remote_problem(place.root)
    except InputError as error:
        problem = error.problems[0].message
    except ValueError as error:  # of a path that no file system takes
        problem = first_line(error)
    if problem:
        raise InputError("storage", [Problem(mask_secrets(storage), mask_secrets(problem))])


def _folder_problem(folder: Path) -> str:
    nearest = nearest_existing(folder)
    if not nearest.is_dir():
        return f"{nearest} is a file; write a folder"
    try:
        with tempfile.TemporaryFile(dir=nearest):  # which has no name on Linux; permissions alone do not tell
            return ""
    except OSError as error:
        return f"{nearest} cannot be written to ({error.strerror}); write another folder, or change its permissions"


def nearest_existing(path: Path) -> Path:
    """Return a path, or the nearest folder above it that exists."""
    return next(parent for parent in (path, *path.parents) if parent.exists())


def _remote_problem(root: str) -> str:
    """Return why an object store cannot be used; its client may wait for much longer than a person does."""
    answers: list[str] = []
    thread = threading.Thread(target=lambda: answers.append(_answer(root)), name="storage", daemon=True)
    thread.start()
    thread.join(LIMIT_S)
    if not answers:
        return f"did not answer in {LIMIT_S:g} s; check the URI, the network and the credentials in the environment"
    return answers[0]


def _answer(root: str) -> str:
    scheme = root.partition("://")[0]
    try:
        filesystem, path = fs.FileSystem.from_uri(_impatient(root) if scheme in ("gs", "gcs") else root)
    except (OSError, ValueError, ImportError) as error:
        return f"is no storage that can be opened ({short_line(error)}); write a folder, or a URI such as s3://BUCKET"
    try:
        bucket = path.partition("/")[0]
        if not bucket and scheme in _WITH_BUCKETS:
            return f"names no bucket; write {scheme}://BUCKET/FOLDER"
        info = filesystem.get_file_info(path)
        if info.type is fs.FileType.File:
            return "is a file; write a folder"
        is_there = info.type is not fs.FileType.NotFound or scheme not in _WITH_BUCKETS
        if not is_there and filesystem.get_file_info(bucket).type is fs.FileType.NotFound:
            return f"there is no bucket {bucket}, or it cannot be seen with these credentials"
    except Exception as error:  # of an fsspec filesystem, whose client has errors of its own
        return f"cannot be reached ({short_line(error)}); check the URI, the network and the credentials"
    return ""


def _impatient(uri: str) -> str:
    option = "retry_limit_seconds"
    return uri if option in uri else f"{uri}{'&' if '?' in uri else '?'}{option}={RETRY_LIMIT_S}"
