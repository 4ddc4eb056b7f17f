"""From a task's files to checked, split rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from orchestrator.common.errors import InputError, Problem
from orchestrator.tasks.batches import subset
from orchestrator.tasks.classes import require_classes, require_training_rows
from orchestrator.tasks.examples import read_examples
from orchestrator.tasks.mapped import mapped_rows
from orchestrator.tasks.notes import conflict_note, label_notes, layout_note
from orchestrator.tasks.registry import TASK_TYPES
from orchestrator.tasks.section import TaskSection
from orchestrator.tasks.splits import NAMES, duplicate_keys, first_of_each, split_rows, without_duplicates

Splits = dict[str, pa.Table]
DIGESTED_ROWS = 1024


@dataclass(frozen=True)
class TaskData:
    """A task's rows, ready to be tokenized.

    Args:
        name: Name of the task.
        config: The task's section of the configuration.
        splits: ``train``, ``validation`` and ``test``; columns ``row`` (int64, the row's number in its file) and those
            of the task's type: ``text``, ``label`` (int32) or ``prompt``, ``completion``.
        labels: Names of what the model's head gives: the classes, whose indices are in ``label``; empty for a language
            model.
        duplicates_removed: How many rows repeated another.
        dropped: How many rows could not be used.
        baseline: The type's baseline on the test rows, such as the accuracy of always answering the most frequent
            training label; ``None`` for a type without one.
        digest: SHA-256 of the splits' content.
        notes: What is worth telling of the rows, for people.
        constants: Numbers that a trained model needs beside its weights.
    """

    name: str
    config: TaskSection
    splits: Splits
    labels: tuple[str, ...]
    duplicates_removed: int
    dropped: int
    baseline: float | None
    digest: str
    notes: tuple[str, ...] = ()
    constants: Mapping[str, float] = field(default_factory=dict)

    @property
    def rows(self) -> dict[str, int]:
        """How many rows of its files each split holds; a conversation of several samples is one row."""
        return {split: len(table["row"].unique()) for split, table in self.splits.items()}

    @property
    def majority(self) -> float | None:
        """The accuracy of always answering the most frequent training label; ``None`` without such labels."""
        return self.baseline if TASK_TYPES[self.config.type].baseline_metric == "accuracy" else None


def read_task(name: str, config: TaskSection, base: Path, seed: int) -> TaskData:
    """Read, check, deduplicate and split a task's rows.

    Args:
        name: Name of the task.
        config: The task's section of the configuration.
        base: The folder that relative paths start from.
        seed: Seed of the splits and of ``max_rows``.

    Raises:
        InputError: With file, row and column of what cannot be used.
    """
    key, type_ = f"tasks.{name}", TASK_TYPES[config.type]
    examples = {path[-1]: read_examples(reference, config, base, key) for path, reference in config.files().items()}
    tables = {part: example.table for part, example in examples.items()}
    files = {part: example.file for part, example in examples.items()}
    dropped = sum(example.dropped for example in examples.values())
    if "data" in tables:
        splits, labels, duplicates = _split(tables["data"], files["data"], type_.text_columns, config, seed, key)
    else:
        splits, labels, duplicates, unseen = _given_splits(tables, files, type_.text_columns, config, seed, key)
        dropped += unseen
    baseline = type_.baseline(splits)
    notes = (
        *layout_note(next(iter(examples.values())).looks, config.type, config.content_columns()),
        *label_notes(labels, splits.values()),
        *conflict_note(tables, type_.text_columns),
    )
    constants, digest = config.constants(splits["train"]), content_digest(splits, labels)
    return TaskData(name, config, splits, labels, duplicates, dropped, baseline, digest, notes, constants)


def _split(
    table: pa.Table, file: str, text_columns: tuple[str, ...], config: TaskSection, seed: int, key: str
) -> tuple[Splits, tuple[str, ...], int]:
    first = first_of_each(duplicate_keys(table, text_columns))
    distinct = table if len(first) == table.num_rows else mapped_rows(table, first)
    encoded, labels = config.encode({"train": distinct}, {"train": file}, key)
    rows = _at_most(encoded["train"], config.max_rows, seed)
    classes = _classes(rows)
    has_one_label = "label" in rows.column_names
    if has_one_label:
        require_classes(rows, labels, file, key)
    try:
        indices = split_rows(rows.num_rows, config.split, seed, classes)
    except ValueError as error:
        rows_are = "1 row is" if rows.num_rows == 1 else f"{rows.num_rows:,} rows are"
        message = f"{rows_are} too few to split into train, validation and test"
        detail = f", with each of {len(labels)} classes in every split" if has_one_label else ""
        raise InputError(file, [Problem(f"{key}.split", message + detail)]) from error
    splits = {name: mapped_rows(rows, indices[name]) for name in NAMES}
    if classes is not None:
        require_training_rows(splits["train"], labels, file, key)
    return splits, labels, table.num_rows - distinct.num_rows


def _given_splits(
    tables: Splits,
    files: Mapping[str, str],
    text_columns: tuple[str, ...],
    config: TaskSection,
    seed: int,
    key: str,
) -> tuple[Splits, tuple[str, ...], int, int]:
    cleaned, duplicates = without_duplicates(tables, text_columns)
    for name in NAMES:
        if not cleaned[name].num_rows:
            others = "the test rows" if name == "validation" else "those of the other splits"
            message = f"every row is also among {others}, which keep it; no row is left"
            raise InputError(files[name], [Problem(f"{key}.data.{name}", message)])
    splits, labels = config.encode(cleaned, files, key)
    unseen = sum(cleaned[name].num_rows - splits[name].num_rows for name in NAMES)
    splits = {name: _at_most(splits[name], config.max_rows, seed) for name in NAMES}
    if "label" in splits["train"].column_names:
        require_classes(splits["train"], labels, files["train"], key, min_rows=1)
    return splits, labels, duplicates, unseen


def _classes(table: pa.Table) -> NDArray[Any] | None:
    """Return the class of each row, or the stratum where rows have several; ``None`` where they have neither."""
    name = next((name for name in ("label", "stratum") if name in table.column_names), None)
    return None if name is None else table[name].to_numpy()


def _at_most(table: pa.Table, count: int | None, seed: int) -> pa.Table:
    if count is None or count >= table.num_rows:
        return table
    return mapped_rows(table, subset(table["row"].to_numpy(), count, seed, _classes(table)))


def content_digest(splits: Mapping[str, pa.Table], labels: tuple[str, ...]) -> str:
    """Return SHA-256 over the splits' texts and labels, whatever file they came from and wherever their rows stood."""
    digest = hashlib.sha256("\0".join(labels).encode())
    for name in NAMES:
        table = splits[name]
        for column in sorted(set(table.column_names) - {"row"}):
            digest.update(f"\0{name}/{column}/{table.num_rows}\0".encode())
            for part in _digested(table[column].chunks):
                digest.update(part)
    return digest.hexdigest()


def _digested(chunks: Sequence[pa.Array]) -> Iterator[bytes]:
    """Iterate over the bytes that stand for a column's values, with the lengths of texts and lists.

    They are the same however the column is divided.
    """
    kind = chunks[0].type if chunks else pa.null()
    if pa.types.is_list(kind):
        yield from (np.diff(array.offsets.to_numpy()).astype(np.int64).tobytes() for array in chunks)
        yield from _digested([array.flatten() for array in chunks])
    elif pa.types.is_string(kind):
        yield from (np.asarray(pc.binary_length(array), np.int64).tobytes() for array in chunks)
        for array in chunks:
            for start in range(0, len(array), DIGESTED_ROWS):  # Python's texts of all rows would be a copy of them
                yield "".join(array.slice(start, DIGESTED_ROWS).to_pylist()).encode()
    else:
        dtype = np.float64 if pa.types.is_floating(kind) else np.int64
        yield from (array.to_numpy().astype(dtype).tobytes() for array in chunks)
