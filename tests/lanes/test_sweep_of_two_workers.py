"""A whole sweep whose lane has two workers, one of which is killed on the way."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch

from orchestrator.backbone.publish import publish_backbone
from orchestrator.common.storage import Storage
from orchestrator.common.trial_types import Job, TrialRecord, trial_seed
from orchestrator.config import load_config
from orchestrator.engine.step import train_step
from orchestrator.lanes import worker_memory as memory_module
from orchestrator.lanes.cluster import Cluster
from orchestrator.lanes.setup import LaneSetup, TaskSetup
from orchestrator.lanes.worker_memory import WorkerMemory
from orchestrator.planning.plan import SweepPlan, make_plan
from orchestrator.sweep.runner import new_sweep_name, run_sweep
from orchestrator.sweep.status import Snapshot

from ..small_sweep import NOISE, descendants, ends, events, journal_of, write_sweep

pytestmark = [pytest.mark.ray, *(pytest.mark.filterwarnings(line) for line in NOISE)]


class SecondWorkerKiller:
    """Kills the worker that does not lead the lane, as soon as the lane is there."""

    killed: int | None = None

    def __call__(self, snapshot: Snapshot) -> None:
        for lane in snapshot.lanes.values():
            if self.killed is None:
                (self.killed,) = workers() - {lane.pid}
                os.kill(self.killed, signal.SIGKILL)


def workers() -> set[int]:
    return {process.pid for process in descendants() if "TrainWorker" in _title(process)}


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def test_sweep_of_two_workers_survives_the_death_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # methods without dropout, which each worker draws for its own rows
    changes: dict[str, Any] = {"methods": ["prefix", "ia3"], "budget": {"trials": 4}, "selection": {"seeds": 1}}
    plan = make_plan(load_config(write_sweep(tmp_path, lanes={"max": 1, "workers": 2}, **changes)))
    killer = SecondWorkerKiller()
    name = new_sweep_name(plan.config.name)
    with Cluster() as cluster:
        outcome = run_sweep(plan, sweep=name, cluster=cluster, watch=killer, stop=threading.Event())
    assert killer.killed
    assert len(outcome.lanes) == 1
    ended = ends(events(journal_of(tmp_path)))
    assert len(ended) == 4
    assert set(ended.values()) <= {"complete", "pruned"}, "nobody fails of the death of a worker"
    alone = one_worker(plan, tmp_path, monkeypatch)
    for record in outcome.trials:
        if record.state == "complete":
            row = 1 / plan.tasks["mail"].data.splits["validation"].num_rows
            assert record.value == pytest.approx(score(alone, plan, record), abs=1.01 * row), "but for one close row"
            assert set(record.values) == set(plan.rungs)


def one_worker(plan: SweepPlan, folder: Path, monkeypatch: pytest.MonkeyPatch) -> WorkerMemory:
    """Return the memory of a lane in this process, with the backbone that the sweep has published."""
    config, task, storage = plan.config, plan.tasks["mail"], Storage.at(plan.config.storage)
    labels = len(task.data.labels)
    kinds = (task.type.auto_class, task.type.name, labels)
    digest = publish_backbone(config.backbone, config.base, *kinds, False, storage).quantized.digest
    splits = {
        split: task.type.tokenize(rows, plan.tokenizer, config.training.max_length)
        for split, rows in task.data.splits.items()
    }
    names, pad = task.data.labels, plan.tokenizer.pad_token_id
    task_setup = TaskSetup(task.data.config, splits, labels, digest, None, pad, names)
    monkeypatch.setattr(memory_module, "ray", SimpleNamespace(get=lambda table: table))
    root, model = storage.root, config.backbone.model
    setup = LaneSetup(root, "alone", model, "float32", {"mail": task_setup}, config.training, config.seed, pack=1)
    return WorkerMemory(setup, torch.device("cpu"), torch.float32)


def score(memory: WorkerMemory, plan: SweepPlan, record: TrialRecord) -> float:
    seed, total = trial_seed(plan.config.seed, record.key), plan.rungs[-1]
    run = memory.begin(Job(trial=record.key, params=dict(record.params), seed=seed, start=0, stop=total, total=total))
    while run.step < total:
        assert train_step([run]) == []
    return run.evaluate("validation").metrics["accuracy"]
