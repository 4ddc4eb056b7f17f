"""Write a file that cannot be used as a case of ``bad_files`` describes it, and say what reading it prints."""

import bz2
import datetime
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq

from orchestrator.common.errors import InputError
from orchestrator.config import load_config
from orchestrator.tasks import read_task

TASK = {"type": "classification", "text": "text", "label": "label"}
NAMES = ("file", "content", "latin1", "rows", "twice", "dates", "write_as", "compress", "cut", "zero", "beside", "task")
"""What a case can have: a file with its content, or the rows that are written to it, and what is done to it then."""


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


COMPRESS = {"gzip": lambda data: gzip.compress(data, mtime=0), "bz2": bz2.compress, "zstd": zstd}


def write_case(case: dict[str, Any], folder: Path) -> Path:
    """Write a case's files and its configuration, and return the latter's path."""
    path = folder / case["file"]
    if "rows" in case:
        written = folder / case.get("write_as", case["file"])
        _write_rows(case, written)
        written.rename(path)
    elif case.get("content") is not None:
        path.write_bytes(case["content"].encode("latin-1" if case.get("latin1") else "utf-8"))
    for name, content in case.get("beside", {}).items():
        (folder / name).write_text(content)
    if path.exists():
        data = bytearray(COMPRESS.get(case.get("compress", ""), bytes)(path.read_bytes()))
        start, stop = case.get("zero", (0, 0))
        data[start:stop] = bytes(stop - start)
        path.write_bytes(data[: case.get("cut", len(data))])
    task = {"data": case["file"], **TASK, **case.get("task", {})}
    task = {key: value for key, value in task.items() if value is not None}
    config = {"backbone": {"model": "x"}, "tasks": {"t": task}, "methods": ["lora"], "budget": {"trials": 1}}
    (folder / "sweep.yaml").write_text(json.dumps(config))
    return folder / "sweep.yaml"


def lines_of(case: dict[str, Any], folder: Path) -> list[str]:
    """Return the lines that a case ends in, without the folder."""
    path = write_case(case, folder)
    try:
        config = load_config(path)
        read_task("t", config.tasks["t"], config.base, 0)
    except InputError as error:
        return [line.replace(f"{folder}/", "").replace(f"{folder}", "FOLDER") for line in error.lines()]
    return []


def _write_rows(case: dict[str, Any], path: Path) -> None:
    rows = [dict(row) for row in case["rows"]]
    for row in rows:
        row.update({name: datetime.date.fromisoformat(row[name]) for name in case.get("dates", ())})
    table = pa.Table.from_pylist(rows)
    if name := case.get("twice"):
        table = pa.table([*table.columns, table[name]], [*table.column_names, name])
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    else:
        pyarrow.feather.write_feather(table, path, compression="uncompressed")
