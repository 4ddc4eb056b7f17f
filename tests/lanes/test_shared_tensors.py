"""The tasks of a sweep share the tensors of a backbone: a lane has them once, whatever the number of tasks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from orchestrator.backbone.shared import SharedBackbone
from orchestrator.backbone.store import publish
from orchestrator.common.storage import Storage
from orchestrator.lanes.setup import LaneSetup, TaskSetup
from orchestrator.lanes.worker_memory import WorkerMemory

from ..backbone.conftest import save_checkpoint
from ..engine.conftest import Lab
from ..small_plan import small_plan

AUTO_CLASS = "AutoModelForSequenceClassification"


@pytest.fixture
def memory(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WorkerMemory:
    """Has not mapped anything yet: two tasks of one backbone, and one of another."""
    monkeypatch.setenv("PEFT_SWEEP_CACHE", str(tmp_path / "cache"))
    storage = Storage(str(tmp_path / "storage"))
    source = save_checkpoint(tmp_path / "model", "bert")
    first, second = (publish(source, AUTO_CLASS, kind, True, storage).digest for kind in ("nf4", "int8"))
    task = TaskSetup(small_plan(["lora"]).tasks["mail"].data.config, {}, 3, first, None, 0)
    tasks = {"mail": task, "news": replace(task, labels=5), "other": replace(task, backbone=second)}
    setup = LaneSetup(storage.root, "mail-1", "tiny", "float32", tasks, lab.training, 0, 1)
    return WorkerMemory(setup, torch.device("cpu"), torch.float32)


def _addresses(backbone: SharedBackbone) -> set[int]:
    """Return where the tensors that passes read are; buffers are computed for each model."""
    buffers = {buffer.data_ptr() for buffer in backbone.model.buffers()}
    return {tensor.data_ptr() for tensor in backbone._read_tensors} - buffers


def test_tasks_of_one_backbone_share_its_tensors(memory: WorkerMemory) -> None:
    mail, news, other = (memory.backbone(task) for task in ("mail", "news", "other"))
    assert _addresses(mail) == _addresses(news)
    assert not _addresses(mail) & _addresses(other)
    ids = torch.tensor([[5, 6, 7]])
    shapes = [tuple(b.view(0)(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.shape) for b in (mail, news)]
    assert shapes == [(1, 3), (1, 5)], "each task has a head of its own"


def test_stray_write_shows_in_every_task_of_the_backbone(memory: WorkerMemory) -> None:
    mail, news = memory.backbone("mail"), memory.backbone("news")
    before = memory.fingerprints["news"]
    with torch.no_grad():
        mail.model.get_input_embeddings().weight[0, 0] += 1  # type: ignore[operator, index]
    assert news.fingerprint() != before
