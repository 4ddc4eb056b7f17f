"""Plan every case of a file in one process that cannot import torch, and print what each ended in as JSON."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from orchestrator.cli import main

CONFIG: dict[str, Any] = {
    "backbone": {"model": "org/name"},
    "tasks": {"mail": {"type": "classification", "data": "mail.csv", "text": "text", "label": "label"}},
    "methods": ["lora", "ia3"],
    "budget": {"trials": 2},
}
ROWS = "text,label,stars\n" + "".join(f"text {number},{'ab'[number % 2]},{number}\n" for number in range(20))


def run(case: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Write a case, plan it, and return its exit code, its lines, what it wrote, and its seconds."""
    folder.mkdir()
    (folder / "mail.csv").write_text(ROWS)
    changes = dict(case.get("change", {}))
    task = {**CONFIG["tasks"]["mail"], **changes.pop("task", {})}
    text = case.get("text", yaml.safe_dump({**CONFIG, "tasks": {"mail": task}, **changes}, sort_keys=False))
    (folder / "sweep.yaml").write_text(text)
    os.chdir(folder)
    sys.argv = ["peft-sweep", "plan", "sweep.yaml"]
    errors, code, start = io.StringIO(), None, time.monotonic()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(errors):
        try:
            main()
        except SystemExit as ended:
            code = ended.code
    lines = [line.replace(f"{folder}/", "").replace(str(folder), "FOLDER") for line in errors.getvalue().splitlines()]
    written = sorted({file.name for file in folder.iterdir()} - {"mail.csv", "sweep.yaml"})
    return {
        "code": code,
        "lines": [line for line in lines if not line.endswith(" ...")],
        "written": written,
        "seconds": time.monotonic() - start,
    }


if __name__ == "__main__":
    cases = yaml.safe_load(Path(sys.argv[1]).read_text(encoding="utf-8"))
    base = Path(sys.argv[2])
    results = {name: run(case, base / str(number)) for number, (name, case) in enumerate(cases.items())}
    print(json.dumps({"torch": "torch" in sys.modules, "cases": results}))
