"""A language model's trials in a pack, whose losses are computed in chunks, against each trial alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from orchestrator.backbone.checkpoint import write
from orchestrator.backbone.shared import SharedBackbone, load
from orchestrator.backbone.source import Source
from orchestrator.config import Training
from orchestrator.engine.frozen_prefix import FrozenPrefix
from orchestrator.engine.step import score_trials, train_step
from orchestrator.engine.task_dataset import TaskDataset
from orchestrator.engine.trial_run import TrialRun
from orchestrator.tasks import token_losses
from orchestrator.tasks.causal_lm import CausalLMTask
from orchestrator.tasks.tokens import token_column

from .conftest import Lab, state

METHODS: dict[str, dict[str, Any]] = {
    "lora": {"dropout": 0.3},
    "prompt": {"tokens": 3},
    "prefix": {"tokens": 3},
    "deep_prompt": {"tokens": 3},
    "last_layers": {"fraction": 0.5},
    "full": {},
}
ROWS = 12


@pytest.fixture(scope="module")
def language_lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    folder = tmp_path_factory.mktemp("language")
    sizes: dict[str, Any] = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"intermediate_size": 64, "max_position_embeddings": 96, "initializer_range": 0.2, "pad_token_id": 0}
    torch.manual_seed(7)
    LlamaForCausalLM(LlamaConfig(**sizes)).save_pretrained(folder / "checkpoint")
    source = Source("tiny", folder / "checkpoint", "tiny", portable=False)
    write(source, "AutoModelForCausalLM", "nf4", True, folder / "tiny.safetensors")
    write(source, "AutoModelForCausalLM", "none", True, folder / "original.safetensors")
    original = folder / "original.safetensors"
    backbone = load(folder / "tiny.safetensors", "causal-lm", name="tiny", dtype=torch.float32, original=original)
    training = Training(max_steps=12, max_length=16)
    return Lab(backbone, _dataset(backbone, training), training, folder)


def _dataset(backbone: SharedBackbone, training: Training) -> TaskDataset:
    draw = np.random.default_rng(3)
    lengths = draw.integers(6, 12, ROWS)
    columns = {
        "row": np.arange(1, ROWS + 1),
        "input_ids": token_column([draw.integers(3, 60, size) for size in lengths]),
        "bytes": lengths.astype(np.int32),
        "trained": token_column([np.arange(size) >= size // 2 for size in lengths], np.uint8),
    }
    config = CausalLMTask(type="causal-lm", data="rows.csv", prompt="{text}", completion="{label}")
    tables = dict.fromkeys(("train", "validation", "test"), pa.table(columns))
    return TaskDataset(config, tables, 0, backbone.decoder, training)


def trials(lab: Lab) -> list[TrialRun]:
    prefix = FrozenPrefix(lab.backbone)
    jobs = [lab.job(name, split="validation", **params) for name, params in METHODS.items()]
    return [TrialRun(job, lab.backbone, lab.dataset, lab.training, prefix=prefix) for job in jobs]


def test_packed_chunked_losses_equal_those_alone(language_lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    packed, alone = trials(language_lab), trials(language_lab)
    monkeypatch.setattr(token_losses, "CHUNK_LOGITS", 240)  # four tokens
    for _ in range(3):
        assert train_step(packed) == []
        for run in alone:
            assert train_step([run]) == []
    score_trials(packed)
    for one, other in zip(packed, alone, strict=True):
        tensors = state(other)
        for name, tensor in state(one).items():
            assert torch.equal(tensor, tensors[name]), (one.job.trial, name)
        assert one.evaluate("validation").metrics == other.evaluate("validation").metrics


def test_chunked_training_equals_training_with_all_logits(language_lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, chunked = trials(language_lab), trials(language_lab)
    for run in whole:
        assert train_step([run]) == []
    monkeypatch.setattr(token_losses, "CHUNK_LOGITS", 240)
    for run in chunked:
        assert train_step([run]) == []
    for one, other in zip(chunked, whole, strict=True):
        tensors = state(other)
        for name, tensor in state(one).items():
            torch.testing.assert_close(tensor, tensors[name], rtol=1e-4, atol=1e-5)
