"""Files that are read in several parts: the same rows, refusals, splits and digest as in one."""

import gzip
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import TypeAdapter

from orchestrator.common.errors import InputError
from orchestrator.config import Task
from orchestrator.tasks import TaskData, examples, mapped, read_task
from orchestrator.tasks.mapped import mapped_rows
from orchestrator.tasks.tokens import characters

Read = Callable[..., TaskData]
ROWS = 20_000


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    def read(part_bytes: float, **section: Any) -> TaskData:
        monkeypatch.setattr(examples, "PART_BYTES", part_bytes)
        monkeypatch.setattr(mapped, "PART_BYTES", min(part_bytes, 1e9))
        monkeypatch.setattr(mapped, "LARGE_BYTES", part_bytes / 4)
        task: Any = TypeAdapter(Task).validate_python(
            {"type": "classification", "text": "text", "label": "label", **section}
        )
        return read_task("mail", task, tmp_path, 0)

    return read


def write(folder: Path, kind: str, rows: list[dict[str, Any]]) -> str:
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet")
    elif kind == "jsonl.gz":
        with gzip.open(folder / "rows.jsonl.gz", "wt") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    else:
        text = "\n".join(f"{row['text']},{row['label']}" for row in rows)
        (folder / "rows.csv").write_text(f"text,label\n{text}\n")
    return f"rows.{kind}"


def tweets(count: int = ROWS) -> list[dict[str, Any]]:
    return [{"text": f"text {number % (count - 50)} of many", "label": "ab"[number % 2]} for number in range(count)]


@pytest.mark.parametrize("kind", ["parquet", "jsonl.gz", "csv"])
def test_file_in_parts_has_the_rows_splits_and_digest_of_one(read: Read, tmp_path: Path, kind: str) -> None:
    file = write(tmp_path, kind, tweets())
    whole, parts = read(math.inf, data=file), read(100_000, data=file)
    assert (parts.digest, parts.labels) == (whole.digest, whole.labels)
    assert parts.duplicates_removed == whole.duplicates_removed == 50
    for name, rows in whole.splits.items():
        assert parts.splits[name].equals(rows)
    assert parts.splits["train"]["text"].num_chunks > 3


def test_rows_that_cannot_be_used_are_told_across_parts(read: Read, tmp_path: Path) -> None:
    rows = tweets()
    for number in (3, 9_000, 19_999):
        rows[number]["text"] = ""
    file = write(tmp_path, "parquet", rows)
    lines = []
    for part_bytes in (math.inf, 100_000):
        with pytest.raises(InputError) as error:
            read(part_bytes, data=file)
        lines.append(str(error.value))
    assert lines[0] == lines[1]
    assert all(f"row {number:,}" in lines[0] for number in (4, 9_001, 20_000))
    whole, parts = (read(size, data=file, drop_invalid=True) for size in (math.inf, 100_000))
    assert (parts.dropped, parts.digest) == (whole.dropped, whole.digest)
    assert parts.dropped == 3


def test_conditions_that_parts_do_not_meet_leave_the_others(read: Read, tmp_path: Path) -> None:
    rows = [{**row, "number": number} for number, row in enumerate(tweets())]
    file = write(tmp_path, "parquet", rows)
    parts = read(100_000, data=file, where={"number": {"at_least": ROWS - 500}})
    assert sum(split.num_rows for split in parts.splits.values()) == 500
    with pytest.raises(InputError, match=r"none of 20,000 rows meets the conditions"):
        read(100_000, data=file, where={"number": {"at_least": ROWS}})


@pytest.mark.parametrize("late", [0.5, "b"])  # in the last part alone
def test_columns_whose_parts_look_different_are_read_as_one(read: Read, tmp_path: Path, late: Any) -> None:
    labels = [number % 2 * 20_000_000 if number < ROWS - 900 else late for number in range(ROWS)]
    rows = [{**row, "label": label} for row, label in zip(tweets(), labels, strict=True)]
    file = write(tmp_path, "jsonl.gz", rows)
    whole, parts = read(math.inf, data=file), read(100_000, data=file)
    assert (parts.digest, parts.labels) == (whole.digest, whole.labels)
    assert len(parts.labels) == 3


def test_floats_that_are_whole_in_some_parts_alone_are_written_alike(read: Read, tmp_path: Path) -> None:
    labels = np.where(np.arange(ROWS) < ROWS - 900, np.arange(ROWS) % 2 * 2e7, 0.5)
    table = pa.table({"text": [row["text"] for row in tweets()], "label": labels})
    pq.write_table(table, tmp_path / "rows.parquet")
    whole, parts = read(math.inf, data="rows.parquet"), read(100_000, data="rows.parquet")
    assert parts.labels == whole.labels
    assert len(parts.labels) == 3


@pytest.mark.parametrize("indices", [[], [0], [4, 5, 9], list(range(10))])
def test_mapped_rows_are_those_of_a_take(monkeypatch: pytest.MonkeyPatch, indices: list[int]) -> None:
    monkeypatch.setattr(mapped, "PART_BYTES", 40)
    monkeypatch.setattr(mapped, "LARGE_BYTES", 20)
    table = pa.table({"text": [f"text {k}" for k in range(10)], "row": range(10)})
    chosen = np.array(indices, np.int64)
    assert mapped_rows(table, chosen).equals(table.take(pa.array(chosen)))
    assert mapped_rows(table.slice(0, 0), chosen[:0]).num_rows == 0


def test_characters_of_a_divided_column_are_those_of_its_rows() -> None:
    texts, lists = ["ab", None, "\N{SNOWMAN}", "", "abc"], [["a", "bc"], None, [], ["\N{SNOWMAN}"], ["", "d"]]
    for values, counts in ((texts, [2, 0, 1, 0, 3]), (lists, [3, 0, 0, 1, 1])):
        whole = pa.array(values)
        for column in (pa.chunked_array([whole]), pa.chunked_array([whole[:2], whole[2:2], whole[2:]])):
            assert characters(column).tolist() == counts
    assert characters(pa.chunked_array([], pa.string())).tolist() == []
