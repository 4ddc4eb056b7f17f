"""A lane's parts without the lane: a tiny quantized backbone, a few rows, and trials on them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import BertConfig, BertModel, LlamaConfig, LlamaModel

from orchestrator.backbone.checkpoint import write
from orchestrator.backbone.shared import SharedBackbone, load
from orchestrator.backbone.source import Source
from orchestrator.common.storage import Storage
from orchestrator.common.trial_types import Job, TrialKey
from orchestrator.config import Task, Training
from orchestrator.engine.task_dataset import TaskDataset
from orchestrator.engine.trial_run import TrialRun
from orchestrator.lanes.lane import Lane
from orchestrator.lanes.setup import LaneSetup
from orchestrator.tasks.tokens import token_column

LABELS, ROWS = 3, 40
AUTO_CLASS = "AutoModelForSequenceClassification"
DROPOUT = {
    # dropout wherever a method or the backbone's own layers have it
    "lora": {"dropout": 0.3},
    "adapter": {"dropout": 0.3, "bottleneck": 8},
}


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass(frozen=True)
class Lab:
    """A backbone, rows, and the means to begin trials."""

    backbone: SharedBackbone
    rows: TaskDataset
    training: Training
    folder: Path

    def job(self, method: str, number: int = 0, **changes: Any) -> Job:
        """Twelve steps of three rows, dropout on; ``changes`` are of the job or of the method's parameters."""
        fields: dict[str, Any] = {"start": 0, "stop": 12, "total": 12}
        fields |= {name: changes.pop(name) for name in (*fields, "seed", "checkpoint") if name in changes}
        params = {"batch_size": 3, "learning_rate": 1e-2, "weight_decay": 0.1, **DROPOUT.get(method, {}), **changes}
        return Job(trial=TrialKey("mail/" + method, number), params=params, **{"seed": 7 + number, **fields})

    def run(self, method: str, number: int = 0, **changes: Any) -> TrialRun:
        return TrialRun(self.job(method, number, **changes), self.backbone, self.rows, self.training)


def train(run: TrialRun, steps: int) -> list[float]:
    """The losses of so many steps of a trial alone."""
    losses = []
    for _ in range(steps):
        loss = run.forward()
        loss.backward()
        run.finish_step(loss)
        losses.append(loss.item())
    return losses


def state(run: TrialRun) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in run.attached.trainable().items()}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="session")
def make_lab(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Lab]:
    made: dict[str, Lab] = {}

    def make(kind: str) -> Lab:
        if kind not in made:
            made[kind] = _lab(tmp_path_factory.mktemp(kind), kind)
        return made[kind]

    return make


@pytest.fixture
def lab(make_lab: Callable[[str], Lab]) -> Lab:
    """With an encoder."""
    return make_lab("encoder")


def _lab(folder: Path, kind: str) -> Lab:
    sizes: dict[str, Any] = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"intermediate_size": 64, "max_position_embeddings": 96, "initializer_range": 0.2, "pad_token_id": 0}
    torch.manual_seed(7)
    tied = LlamaConfig(**sizes, tie_word_embeddings=kind == "tied decoder")
    model: Any = BertModel(BertConfig(**sizes)) if kind == "encoder" else LlamaModel(tied)
    model.save_pretrained(folder / "checkpoint")
    source = Source("tiny", folder / "checkpoint", "tiny", portable=False)
    write(source, AUTO_CLASS, "nf4", True, folder / "tiny.safetensors")
    write(source, AUTO_CLASS, "none", True, folder / "original.safetensors")
    backbone = load(
        folder / "tiny.safetensors",
        "classification",
        name="tiny",
        dtype=torch.float32,
        labels=LABELS,
        original=folder / "original.safetensors",
    )
    draw = np.random.default_rng(3)
    tables = {
        split: pa.table(
            {
                "row": np.arange(1, ROWS + 1),
                "input_ids": token_column([draw.integers(3, 60, size) for size in draw.integers(3, 12, ROWS)]),
                "label": draw.integers(0, LABELS, ROWS).astype(np.int32),
            }
        )
        for split in ("train", "validation", "test")
    }
    training, config = Training(max_steps=12, max_length=16), _task()
    rows = TaskDataset(config, tables, 0, backbone.decoder, training, 0, Storage(str(folder)))
    return Lab(backbone, rows, training, folder)


def _task() -> Task:
    from pydantic import TypeAdapter

    task = {"type": "classification", "data": "rows.csv", "text": "text", "label": "label", "metric": "macro_f1"}
    made: Task = TypeAdapter(Task).validate_python(task)
    return made


@pytest.fixture
def here(lab: Lab, tmp_path: Path) -> Lane:
    """A lane that has mapped everything."""
    setup = LaneSetup(str(tmp_path), "mail-1", "tiny", "float32", {}, lab.training, 0, 1)
    made = Lane(setup, torch.device("cpu"), torch.float32)
    made._backbones["mail"], made._rows["mail"] = lab.backbone, lab.rows
    made.fingerprints["mail"] = lab.backbone.fingerprint()
    return made
