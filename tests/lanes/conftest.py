"""The engine's lab, and a worker's memory that holds its backbone and dataset."""

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.common.storage import Storage
from orchestrator.lanes.setup import LaneSetup
from orchestrator.lanes.worker_memory import WorkerMemory

from ..engine.conftest import Lab, lab, make_lab, one_thread, prompted, sources

__all__ = ["lab", "make_lab", "memory", "one_thread", "prompted", "sources"]


@pytest.fixture
def memory(lab: Lab, tmp_path: Path) -> WorkerMemory:
    """A worker's memory that has mapped everything."""
    setup = LaneSetup(str(tmp_path), "mail-1", "tiny", "float32", {}, lab.training, 0, 1)
    return memory_with(lab, setup)


@pytest.fixture
def may_upload(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """An event that uploads to the storage wait for."""
    event, upload = threading.Event(), Storage.upload

    def slowly(storage: Storage, *arguments: Any) -> None:
        assert event.wait(60.0)
        upload(storage, *arguments)

    monkeypatch.setattr(Storage, "upload", slowly)
    return event


def memory_with(lab: Lab, setup: LaneSetup) -> WorkerMemory:
    """Return a worker's memory that holds the lab's backbone and dataset, for the task ``mail``."""
    memory = WorkerMemory(setup, torch.device("cpu"), torch.float32)
    memory._backbones["mail"], memory._datasets["mail"] = lab.backbone, lab.dataset
    memory.fingerprints["mail"] = lab.backbone.fingerprint()
    return memory
