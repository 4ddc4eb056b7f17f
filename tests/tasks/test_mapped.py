"""Large splits lie in mapped files: the same rows, and no memory of the process."""

from __future__ import annotations

import hashlib
import logging
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.tasks import TaskData, mapped

ROWS, REPEATS = 4000, 40
BYTES = ROWS * REPEATS * 32
Read = Callable[..., TaskData]
Result = TypeVar("Result")


def table(first: int = 0, rows: int = ROWS) -> pa.Table:
    texts = [hashlib.md5(str(first + row).encode()).hexdigest() * REPEATS for row in range(rows)]
    return pa.table({"text": texts, "label": ["good" if row % 3 else "bad" for row in range(rows)]})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def allocated(function: Callable[[], Result]) -> tuple[Result, int]:
    before = pa.total_allocated_bytes()
    result = function()
    return result, pa.total_allocated_bytes() - before


def test_mapped_table_is_equal_and_takes_no_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped, "LARGE_BYTES", BYTES // 2)
    rows = pa.concat_tables([table(), table(ROWS)])
    copy, size = allocated(lambda: mapped.mapped(rows))
    assert copy == rows
    assert size < BYTES / 20
    assert {column.num_chunks for column in copy.columns} == {1}, "columns are read without a copy"
    assert not list(folder.iterdir())
    small = rows.slice(0, 10)
    assert mapped.mapped(small) is small


def test_mapped_file_goes_with_a_killed_process(folder: Path) -> None:
    lines = [
        "import os, pyarrow as pa, tempfile",
        f"tempfile.tempdir = {str(folder)!r}",
        "from orchestrator.tasks import mapped",
        "mapped.LARGE_BYTES = 0",
        "rows = mapped.mapped(pa.table({'text': ['a']}))",
        "print(sum('.arrow' in line for line in open('/proc/self/maps')), flush=True)",
        "os.kill(os.getpid(), 9)",
    ]
    ended = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True)
    assert (ended.stdout.strip(), ended.returncode) == ("1", -9), ended.stderr
    assert not list(folder.iterdir())


def test_rows_that_cannot_be_written_stay_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(mapped, "LARGE_BYTES", 0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    rows = table(rows=5)
    with caplog.at_level(logging.WARNING):
        assert mapped.mapped(rows) is rows
    assert "stay in memory" in caplog.text


@pytest.mark.parametrize("given", [False, True], ids=["one_file", "three_files"])
def test_mapped_splits_are_those_in_memory(
    read: Read, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, given: bool
) -> None:
    parts = {"train": table(), "validation": table(ROWS - 100, 700), "test": table(ROWS, 400)}
    for name, part in parts.items():
        pq.write_table(pa.concat_tables([part, part.slice(3, 50)]), tmp_path / f"{name}.parquet")
    data = {name: f"{name}.parquet" for name in parts} if given else "train.parquet"
    expected = read(data)
    monkeypatch.setattr(mapped, "LARGE_BYTES", BYTES // 100)
    result, size = allocated(lambda: read(data))
    assert size < BYTES / 20, "no split is in memory"
    assert result == expected
    assert not list(folder.iterdir())
