"""Optuna's file on a full disk, where the search goes on without it."""

from __future__ import annotations

from pathlib import Path

from orchestrator.search.optuna_file import OptunaFile

from ..small_disk import small_disk


def test_optuna_file_that_cannot_be_written_is_removed(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", kilobytes=16) as disk:
        file = OptunaFile(disk.folder / "optuna.log")
        file.create("mail/lora", higher_is_better=True)
        disk.fill()
        file.start("mail/lora", 0, {}, {}, {"size": 1.0})
        for rung in range(100):
            file.report("mail/lora", 0, rung, 0.5)
        file.end("mail/lora", 0, "complete", 0.5, "")
        file.flush()
        assert not (disk.folder / "optuna.log").exists()
        file.start("mail/lora", 1, {}, {}, {})
        file.flush()
