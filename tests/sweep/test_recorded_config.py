"""A configuration that an earlier release recorded, against the file that a sweep is resumed with."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

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
