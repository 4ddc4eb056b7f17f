"""A tiny quantized backbone, a few rows, and trials on them; without Ray."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import BertConfig, BertModel, LlamaConfig, LlamaModel, PreTrainedTokenizerFast

from orchestrator.backbone.checkpoint import write
from orchestrator.backbone.shared import SharedBackbone, load
from orchestrator.backbone.source import Source
from orchestrator.common.storage import Storage
from orchestrator.common.trial_types import Job, TrialKey
from orchestrator.config import Task, Training
from orchestrator.engine.task_dataset import TaskDataset
from orchestrator.engine.trial_run import TrialRun
from orchestrator.tasks.tokens import token_column

LABELS, ROWS = 3, 40
NAMES = ("word7", "word8", "word9")
AUTO_CLASS = "AutoModelForSequenceClassification"
DROPOUT = {
    # dropout of the method's own
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
    """A backbone, a dataset, and functions that start trials on them."""

    backbone: SharedBackbone
    dataset: TaskDataset
    training: Training
    folder: Path

    def job(self, method: str, number: int = 0, **changes: Any) -> Job:
        """Return a job of twelve steps of three rows, with dropout; ``changes`` are of the job or of its parameters."""
        fields: dict[str, Any] = {"start": 0, "stop": 12, "total": 12}
        fields |= {name: changes.pop(name) for name in (*fields, "seed", "checkpoint", "split") if name in changes}
        params = {"batch_size": 3, "learning_rate": 1e-2, "weight_decay": 0.1, **DROPOUT.get(method, {}), **changes}
        return Job(trial=TrialKey("mail/" + method, number), params=params, **{"seed": 7 + number, **fields})

    def run(self, method: str, number: int = 0, **changes: Any) -> TrialRun:
        return TrialRun(self.job(method, number, **changes), self.backbone, self.dataset, self.training)


def train(run: TrialRun, steps: int) -> list[float]:
    """Take so many steps with a trial alone and return the losses."""
    losses = []
    for _ in range(steps):
        loss = run.forward()
        loss.backward()
        run.finish_step(loss)
        losses.append(loss.item())
    return losses


def state(run: TrialRun) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in run.attached.trainable().items()}


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="session")
def make_lab(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Lab]:
    labs: dict[str, Lab] = {}

    def make(kind: str) -> Lab:
        if kind not in labs:
            labs[kind] = build_lab(tmp_path_factory.mktemp(kind), kind)
        return labs[kind]

    return make


@pytest.fixture
def lab(make_lab: Callable[[str], Lab]) -> Lab:
    """The lab with an encoder."""
    return make_lab("encoder")


def build_lab(folder: Path, kind: str) -> Lab:
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
    dataset = TaskDataset(config, tables, 0, backbone.decoder, training, 0, Storage(str(folder)))
    return Lab(backbone, dataset, training, folder)


def _task() -> Task:
    from pydantic import TypeAdapter

    task = {"type": "classification", "data": "rows.csv", "text": "text", "label": "label", "metric": "macro_f1"}
    config: Task = TypeAdapter(Task).validate_python(task)
    return config


def store_tokenizer(folder: Path) -> None:
    words = {"<pad>": 0, "</s>": 1, "<unk>": 2} | {f"word{index}": index for index in range(3, 60)}
    tokenizer = Tokenizer(WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder / "tokenizer")


def table(labels: list[int], seed: int = 5) -> pa.Table:
    draw = np.random.default_rng(seed)
    ids = [draw.integers(3, 60, size) for size in draw.integers(3, 12, len(labels))]
    columns = {"row": np.arange(1, len(labels) + 1), "label": np.array(labels, np.int32)}
    return pa.table({**columns, "input_ids": token_column(ids)})


def dataset_of(lab: Lab, folder: Path, train: pa.Table, names: tuple[str, ...] = NAMES, seed: int = 0) -> TaskDataset:
    tables = {**lab.dataset._tables, "train": train}
    return TaskDataset(
        lab.dataset._config, tables, 0, lab.backbone.decoder, lab.training, seed, Storage(str(folder)), names
    )


@pytest.fixture
def prompted(make_lab: Callable[[str], Lab], tmp_path: Path) -> Lab:
    """A lab whose backbone predicts tokens and whose dataset has a tokenizer."""
    lab = make_lab("tied decoder")
    store_tokenizer(tmp_path)
    return replace(lab, dataset=dataset_of(lab, tmp_path, lab.dataset._tables["train"]), folder=tmp_path)


@pytest.fixture
def sources(lab: Lab, tmp_path: Path) -> dict[str, TaskDataset]:
    """Datasets of two source tasks, with two and five classes."""
    few = dataset_of(lab, tmp_path, table([0, 1] * 10, seed=11), ("no", "yes"))
    many = dataset_of(lab, tmp_path, table([0, 1, 2, 3, 4] * 3, seed=12), ("a", "b", "c", "d", "e"))
    return {"few": few, "many": many}
