"""Resolve references to files and folders, as users write them.

A reference is a path, a URI such as ``s3://bucket/rows.parquet``, or ``package:NAME/SUBPATH``, which is a path inside
an installed Python package.
"""

from __future__ import annotations

import json
import re
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.common.errors import InputError, Problem, first_line

if TYPE_CHECKING:
    from pyarrow import fs

PACKAGE = "package:"
_USERINFO = re.compile(r"(?<=://)[^/?#\s]*@")
_SECRET_QUERY = re.compile(r"(?i)([?&][^=&]*(?:password|passwd|secret|token|key|credential)[^=&]*=)[^&#]*")
_MASKED = re.compile(r"\*\*\*@|=\*\*\*")


def locate_package(reference: str) -> Path:
    """Return the file or folder of ``package:NAME/SUBPATH``, without importing the package.

    Raises:
        InputError: if the reference is malformed, the package is not installed, or has no such file.
    """
    name, _, subpath = reference.removeprefix(PACKAGE).partition("/")
    if not name.isidentifier() or ".." in Path(subpath).parts:
        raise _bad_reference(
            reference, "write package:NAME/SUBPATH with an importable NAME and a path inside the package"
        )
    spec = PathFinder.find_spec(name, sys.path)
    if spec is None or not spec.submodule_search_locations:
        raise _bad_reference(reference, f"the package is not installed; pip install {name.replace('_', '-')}")
    folder = Path(next(iter(spec.submodule_search_locations)))
    if not (path := folder / subpath).exists():
        raise _bad_reference(reference, f"the installed package {name} has no {subpath}")
    return path


def expand_home(path: str) -> Path:
    """Return a path with the home directory in place of a ``~`` at its beginning.

    Raises:
        InputError: if the home directory is not known, as in a container without HOME.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        message = f"the home directory of {path.partition('/')[0]} is not known here; write the whole path"
        raise _bad_reference(path, message) from error


def is_uri(reference: str) -> bool:
    """Return whether a reference has a scheme, as in ``s3://bucket/rows.parquet``."""
    return "://" in reference


def local_path(reference: str, base: Path) -> Path | None:
    """Return the path of a reference on this machine, or ``None`` for a URI.

    Args:
        reference: a path, a URI, or ``package:NAME/SUBPATH``.
        base: the folder that relative paths start from.

    Raises:
        InputError: if the package is not installed or lacks the file.
    """
    if reference.startswith(PACKAGE):
        return locate_package(reference)
    return None if is_uri(reference) else base / expand_home(reference)


def open_location(reference: str, base: Path) -> tuple[fs.FileSystem, str]:
    """Return the filesystem that a reference is in, and the path of the file or folder in that filesystem.

    Args:
        reference: a path, a URI, or ``package:NAME/SUBPATH``.
        base: the folder that relative paths start from.

    Raises:
        InputError: if the package is not installed or lacks the file, or pyarrow cannot open the URI.
    """
    from pyarrow import fs

    if (path := local_path(reference, base)) is not None:
        return fs.LocalFileSystem(), str(path)
    try:
        filesystem, inner = fs.FileSystem.from_uri(reference)
    except (OSError, ValueError) as error:
        raise _bad_reference(
            mask_secrets(reference), f"is not a URI that can be opened ({mask_secrets(str(error))})"
        ) from error
    return filesystem, inner


def mask_secrets(text: str) -> str:
    """Return a text with the users, passwords and keys of the URIs in it replaced by ``***``."""
    return _SECRET_QUERY.sub(r"\1***", _USERINFO.sub("***@", text))


def has_masked_secrets(value: Any) -> bool:
    """Return whether a JSON value holds secrets in the form that :func:`mask_secrets` gives them."""
    return bool(_MASKED.search(json.dumps(value)))


def masked_first_line(error: BaseException) -> str:
    """Return the first line of an error's message without passwords and keys in URIs."""
    return mask_secrets(first_line(error))


def _bad_reference(reference: str, message: str) -> InputError:
    return InputError(reference, [Problem("", message)])
