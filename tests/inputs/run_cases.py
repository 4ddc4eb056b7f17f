"""Run the cases in one process that cannot import torch, and print what each ended in as JSON."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from orchestrator.cli import main

CASES = Path(__file__).parent / "cases"
CONFIG: dict[str, Any] = {
    "backbone": {"model": "org/name"},
    "tasks": {"mail": {"type": "classification", "data": "mail.csv", "text": "text", "label": "label"}},
    "methods": ["lora", "ia3"],
    "budget": {"trials": 2},
}
ROWS = "text,label,stars\n" + "".join(f"text {number},{'ab'[number % 2]},{number}\n" for number in range(20))


def write_config(case: dict[str, Any], folder: Path) -> None:
    """Write a configuration with a case's changes, and the rows that it names."""
    (folder / "mail.csv").write_text(ROWS)
    changes = dict(case.get("change", {}))
    task = {**CONFIG["tasks"]["mail"], **changes.pop("task", {})}
    text = case.get("text", yaml.safe_dump({**CONFIG, "tasks": {"mail": task}, **changes}, sort_keys=False))
    (folder / "sweep.yaml").write_text(text)


def write_data(case: dict[str, Any], folder: Path) -> None:
    """Copy a case's file of rows, or its folder of files, and write a configuration that reads it."""
    if (source := CASES / "data" / case.get("beside", case["data"])).is_dir():
        shutil.copytree(source, folder, dirs_exist_ok=True)
    elif source.exists():
        shutil.copy(source, folder)
    task = {"data": case["data"], "type": "classification", "text": "text", "label": "label", **case.get("task", {})}
    config = {**CONFIG, "tasks": {"mail": {key: value for key, value in task.items() if value is not None}}}
    (folder / "sweep.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


def write_folder(case: dict[str, Any], folder: Path) -> None:
    """Copy a case's folder."""
    shutil.copytree(CASES / "folders" / case["folder"], folder, dirs_exist_ok=True)


def write(case: dict[str, Any], folder: Path) -> None:
    """Write the files of a case of whatever kind."""
    folder.mkdir()
    kind = write_folder if "folder" in case else write_data if "data" in case else write_config
    kind(case, folder)


def run(case: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Write a case, run its command, and return its exit code, its lines, what it wrote, and its seconds."""
    write(case, folder)
    before = {file.relative_to(folder) for file in folder.rglob("*")}
    os.chdir(folder)
    sys.argv = ["peft-sweep", *shlex.split(case.get("command", "plan sweep.yaml"))]
    errors, code, start = io.StringIO(), None, time.monotonic()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(errors):
        try:
            main()
        except SystemExit as ended:
            code = ended.code
    lines = [line.replace(f"{folder}/", "").replace(str(folder), "FOLDER") for line in errors.getvalue().splitlines()]
    after = {file.relative_to(folder) for file in folder.rglob("*") if file.name != "driver.lock"}
    return {
        "code": code,
        "lines": [line for line in lines if not line.endswith(" ...")],
        "written": sorted(map(str, after - before)),
        "seconds": time.monotonic() - start,
    }


if __name__ == "__main__":
    *indices, base = map(Path, sys.argv[1:])
    results: dict[str, dict[str, Any]] = {}
    for index in indices:
        (folder := base / index.stem).mkdir()
        cases = yaml.safe_load(index.read_text(encoding="utf-8"))
        results[index.stem] = {
            name: run(case, folder / str(number)) for number, (name, case) in enumerate(cases.items())
        }
    print(json.dumps({"torch": "torch" in sys.modules, "results": results}))
