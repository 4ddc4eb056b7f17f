"""A check of a task's files by their beginnings: are they there, and do they have the columns of the task?"""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from orchestrator.common.errors import InputError
from orchestrator.common.suggest import did_you_mean
from orchestrator.common.uris import local_path

Key = tuple[str, ...]


def column_problem(column: str, columns: Sequence[str], file: str) -> str:
    """Return what keeps a column from being read: the file lacks it, or has two of the name; empty if nothing does."""
    if columns.count(column) == 1:
        return ""
    if column in columns:
        return f'{file} has {columns.count(column)} columns called "{column}"; rename one'
    hint = did_you_mean(column, columns, "columns")
    if hint.startswith("did"):
        return f'column "{column}" is not in {file}; {hint} (columns: {", ".join(columns)})'
    return f'column "{column}" is not in {file} ({hint})'


def header_problems(
    files: Mapping[Key, str], columns: Mapping[Key, Sequence[str]], encoding: str, context: Mapping[str, Any] | None
) -> list[tuple[Key, str]]:
    """Return what is wrong with a task's files, as far as their beginnings show it.

    Files behind a URI are not read: a configuration is checked without the network.

    Args:
        files: References by key path.
        columns: Names of columns by key path.
        encoding: Text encoding of csv files.
        context: With the folder that relative paths start from as ``base``; without a context no file is read.
    """
    from orchestrator.tasks.reading.locate import suffixes

    problems: list[tuple[Key, str]] = []
    if not _is_encoding(encoding):
        problems.append((("encoding",), f"{encoding!r} is not an encoding that Python knows"))
    for key, reference in files.items():
        if _has_unknown_suffix(reference) and not (context and (context["base"] / reference).is_dir()):
            problems.append((key, f"{reference!r} must end in {suffixes()}"))
    if context is not None and not problems:
        for key, reference in files.items():
            problems += _file_problems(key, reference, columns, encoding, context["base"])
    return problems


def _file_problems(
    key: Key, reference: str, columns: Mapping[Key, Sequence[str]], encoding: str, base: Path
) -> list[tuple[Key, str]]:
    from orchestrator.tasks.reading.hub import EXTRA, PREFIX
    from orchestrator.tasks.reading.locate import is_pattern, locate
    from orchestrator.tasks.reading.open import open_source, reading

    if reference.startswith(PREFIX):
        return [] if find_spec("datasets") else [(key, f"{reference} {EXTRA}")]
    try:
        path = local_path(reference, base)
        if path is None:
            return []
        if not path.exists() and not is_pattern(reference):
            return [(key, f"there is no file {path}")]
        file = locate(reference, base)[0]
        with reading(file, encoding):
            header = open_source(file, encoding).names
    except InputError as error:
        return [(key, f"{error.source} {error.problems[0].message}")]
    named = [(column_key, name) for column_key, names in columns.items() for name in names]
    problems = [(column_key, column_problem(name, header, file.name)) for column_key, name in named]
    return [(column_key, message) for column_key, message in problems if message]


def _has_unknown_suffix(reference: str) -> bool:
    """Return whether a reference ends like a file of a format that is not known; folders have no suffix."""
    from orchestrator.tasks.reading.hub import PREFIX
    from orchestrator.tasks.reading.source import split_suffix

    if reference.startswith(PREFIX):
        return False
    name = reference.rstrip("/").rpartition("/")[2]
    return bool(re.search(r"[^.*]\.[A-Za-z]\w*$", name)) and not split_suffix(name)[0]


def _is_encoding(name: str) -> bool:
    try:
        codecs.lookup(name)
    except LookupError:
        return False
    return True
