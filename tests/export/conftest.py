"""The folder of a sweep of one trial."""

from pathlib import Path

import pytest

from .small_sweep_folder import Leave, left_in


@pytest.fixture
def leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Leave:
    monkeypatch.setenv("PEFT_SWEEP_CACHE", str(tmp_path / "cache"))
    return left_in(tmp_path)
