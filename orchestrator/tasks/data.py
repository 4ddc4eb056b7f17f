"""From a task's files to checked, split rows."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.common.errors import InputError, Problem
from orchestrator.config import CausalLMTask, ClassificationTask, Task
from orchestrator.tasks.batches import subset
from orchestrator.tasks.classes import encode, majority_share, require_classes
from orchestrator.tasks.examples import examples
from orchestrator.tasks.splits import NAMES, first_of_each, identities, split_rows, without_duplicates


@dataclass(frozen=True)
class TaskData:
    """A task's rows, ready to be tokenized.

    Args:
        name: the task's.
        config: what the sweep says of it.
        splits: ``train``, ``validation`` and ``test``; columns ``row`` (int64, the row's number in its file) and
            ``text``, ``label`` (int32) or ``prompt``, ``completion``.
        labels: names of the classes; the label column holds indices into it. Empty without classes.
        duplicates_removed: rows that repeated another.
        dropped: rows that could not be used.
        majority: share of the test rows that belong to the most frequent class of the training rows.
        digest: SHA-256 of the splits' content.
    """

    name: str
    config: Task
    splits: dict[str, pa.Table]
    labels: tuple[str, ...]
    duplicates_removed: int
    dropped: int
    majority: float | None
    digest: str


def read_task(name: str, config: Task, base: Path, seed: int) -> TaskData:
    """Read, check, deduplicate and split a task's rows.

    Args:
        name: the task's.
        config: what the sweep says of it.
        base: the folder that relative paths start from.
        seed: of the splits and of ``max_rows``.

    Raises:
        InputError: naming file, row and column of what cannot be used.
    """
    key = f"tasks.{name}"
    found = {path[-1]: examples(reference, config, base, key) for path, reference in config.files().items()}
    tables, dropped = {part: table for part, (table, _) in found.items()}, sum(count for _, count in found.values())
    columns = ["prompt", "completion"] if isinstance(config, CausalLMTask) else ["text"]
    if "data" in tables:
        splits, labels, duplicates = _split(tables["data"], columns, config, seed, key)
    else:
        splits, labels, duplicates, unseen = _given(tables, columns, config, seed, key)
        dropped += unseen
    share = majority_share(splits) if isinstance(config, ClassificationTask) else None
    return TaskData(name, config, splits, labels, duplicates, dropped, share, content_digest(splits, labels))


Splits = dict[str, pa.Table]


def _split(
    table: pa.Table, columns: list[str], config: Task, seed: int, key: str
) -> tuple[Splits, tuple[str, ...], int]:
    distinct = table.take(pa.array(first_of_each(identities(table, columns))))
    encoded, labels = _encoded({"train": distinct}, config, key)
    rows = _at_most(encoded["train"], config.max_rows, seed)
    file = _file(config, "data")
    if labels:
        require_classes(rows, labels, file, key)
    codes = rows["label"].to_numpy() if labels else None
    try:
        parts = split_rows(rows.num_rows, config.split, seed, codes)
    except ValueError as error:
        message = f"{rows.num_rows:,} rows are too few to split into train, validation and test"
        detail = f", with each of {len(labels)} classes in every split" if labels else ""
        raise InputError(file, [Problem(f"{key}.split", message + detail)]) from error
    splits = {name: rows.take(pa.array(parts[name])) for name in NAMES}
    _require_labels_learned(splits, labels, file, key)
    return splits, labels, table.num_rows - distinct.num_rows


def _given(
    tables: Splits, columns: list[str], config: Task, seed: int, key: str
) -> tuple[Splits, tuple[str, ...], int, int]:
    cleaned, duplicates = without_duplicates(tables, columns)
    for name in NAMES:
        if not cleaned[name].num_rows:
            raise InputError(
                _file(config, name), [Problem(f"{key}.data.{name}", "no row is left that is not a duplicate")]
            )
    splits, labels = _encoded(cleaned, config, key)
    unseen = sum(cleaned[name].num_rows - splits[name].num_rows for name in NAMES)
    splits = {name: _at_most(splits[name], config.max_rows, seed) for name in NAMES}
    if labels:
        require_classes(splits["train"], labels, _file(config, "train"), key, fewest=1)
    return splits, labels, duplicates, unseen


def _encoded(tables: Splits, config: Task, key: str) -> tuple[Splits, tuple[str, ...]]:
    """The tables with labels as numbers; as they are where the task has none."""
    if isinstance(config, ClassificationTask):
        files = {name: _file(config, name) for name in tables}
        return encode(tables, files, config.label, key, config.drop_invalid)
    return tables, ()


def _at_most(table: pa.Table, count: int | None, seed: int) -> pa.Table:
    if count is None or count >= table.num_rows:
        return table
    labels = table["label"].to_numpy() if "label" in table.column_names else None
    return table.take(pa.array(subset(table["row"].to_numpy(), count, seed, labels)))


def _require_labels_learned(splits: Splits, labels: tuple[str, ...], file: str, key: str) -> None:
    """A small class can miss the training rows by the luck of the draw."""
    seen = set(pc.unique(splits["train"]["label"]).to_pylist()) if labels else set()
    if missing := [label for code, label in enumerate(labels) if code not in seen]:
        message = f"class {missing[0]!r} has too few rows to be in every split"
        raise InputError(file, [Problem(f"{key}.label", message)])


def _file(config: Task, split: str) -> str:
    """The file that a split comes from, as errors name it."""
    files = {path[-1]: reference for path, reference in config.files().items()}
    return files.get(split, files.get("data", "")).rpartition("/")[2]


def content_digest(splits: Mapping[str, pa.Table], labels: tuple[str, ...]) -> str:
    """SHA-256 over the splits' texts and labels, whatever file they came from and where their rows stood in it."""
    digest = hashlib.sha256("\0".join(labels).encode())
    for name in NAMES:
        table = splits[name]
        for column in sorted(set(table.column_names) - {"row"}):
            digest.update(f"\0{name}/{column}/{table.num_rows}\0".encode())
            array = table[column].combine_chunks()
            if pa.types.is_string(array.type):
                digest.update(np.asarray(pc.binary_length(array), np.int64).tobytes())
                digest.update("".join(array.to_pylist()).encode())
            else:
                digest.update(array.to_numpy().astype(np.int64).tobytes())
    return digest.hexdigest()
