"""A configuration that an earlier release recorded, against the file that a sweep is resumed with."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml

from orchestrator.common.errors import InputError
from orchestrator.config import load_config
from orchestrator.sweep.resume import _config_of_file
from orchestrator.sweep.saved_state import SavedSweep

from ..small_sweep import write_sweep


def resumed(file: Path, recorded: dict[str, Any]) -> None:
    description = {"config": recorded, "directory": str(Path.cwd())}
    saved = SimpleNamespace(sweep="tiny", folder=file.parent / "sweeps" / "tiny", storage="", description=description)
    _config_of_file(cast(SavedSweep, saved), file)


def test_resume_takes_keys_that_an_earlier_release_lacked(tmp_path: Path) -> None:
    file = write_sweep(tmp_path)
    recorded = load_config(file).resolved()
    del recorded["lanes"]["gpu_memory"], recorded["gpu"]
    for task in recorded["tasks"].values():
        del task["text_pair"], task["labels"]
    resumed(file, recorded)


def test_resume_refuses_a_new_key_with_another_value(tmp_path: Path) -> None:
    file = write_sweep(tmp_path, lanes={"gpu_memory": "80GB"})
    recorded = load_config(file).resolved()
    del recorded["lanes"]["gpu_memory"]
    with pytest.raises(InputError, match="lanes: differs"):
        resumed(file, recorded)


@pytest.mark.parametrize("train_on", [None, "all"])
def test_resume_takes_keys_of_tasks_that_an_earlier_release_lacked(tmp_path: Path, train_on: str | None) -> None:
    file = write_sweep(tmp_path)
    values = yaml.safe_load(file.read_text())
    (data,) = {task["data"] for task in values["tasks"].values() if isinstance(task["data"], str)}
    task = {"type": "causal-lm", "data": data, "prompt": "text", "completion": "label", "train_on": train_on}
    values["tasks"] = {"mail": {key: value for key, value in task.items() if value}}
    file.write_text(yaml.safe_dump(values))
    recorded = load_config(file).resolved()
    for key in ("messages", "conversations", "tools", "instruction", "input", "output", "text", "train_on"):
        del recorded["tasks"]["mail"][key]
    if train_on is None:
        resumed(file, recorded)
        return
    with pytest.raises(InputError, match="tasks: differs"):
        resumed(file, recorded)
