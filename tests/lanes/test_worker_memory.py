"""What a worker measures and scores at the end of a job, and what it passes to a new trial."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.common.trial_types import Job
from orchestrator.engine import measurements
from orchestrator.engine import memory as memory_module
from orchestrator.engine.task_dataset import TaskDataset
from orchestrator.lanes.setup import LaneSetup, TaskSetup
from orchestrator.lanes.worker_memory import WorkerMemory

from ..engine.conftest import LABELS, NAMES, Lab, train
from .conftest import memory_with


def test_latency_is_measured_once_per_form_at_the_end(
    lab: Lab, memory: WorkerMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []

    def measure(*arguments: Any) -> dict[str, float]:
        calls.append(arguments)
        return {"latency_overhead_1": 0.25, "latency_overhead_32": 0.125}

    monkeypatch.setattr(measurements, "latency_overheads", measure)

    def answer(job: Job) -> dict[str, float]:
        run = memory.begin(job)
        train(run, job.stop - run.step)
        return memory.finish_job(run).upload().measurements

    first = lab.job("lora", stop=4)
    assert "latency_overhead_1" not in answer(first)
    last = Job(**{**vars(first), "start": 4, "stop": 12, "checkpoint": "checkpoints/mail/lora/0/step-4"})
    assert answer(last)["latency_overhead_32"] == 0.125
    test = Job(**{**vars(last), "start": 12, "checkpoint": "checkpoints/mail/lora/0/step-12", "split": "test"})
    assert answer(test)["latency_overhead_1"] == 0.25, "it is stored in the checkpoint"
    assert len(calls) == 1
    assert answer(lab.job("lora", 1, learning_rate=1e-4))["latency_overhead_1"] == 0.25
    assert len(calls) == 1, "an adapter of the same form was measured"
    answer(lab.job("lora", 2, rank=2))
    answer(lab.job("ia3", 3))
    assert len(calls) == 3, "no adapter of these forms was measured"


def test_memory_of_a_resumed_trial_excludes_trials_in_between(
    lab: Lab, memory: WorkerMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_use = [0]
    monkeypatch.setattr(memory_module, "_bytes_in_use", lambda: in_use[0])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    first = lab.job("lora", stop=2)
    run = memory.begin(first)
    train(run, 2)
    memory.finish_job(run).upload()
    in_use[0] = 10**9
    again = memory.begin(Job(**{**vars(first), "start": 2, "stop": 4, "checkpoint": "checkpoints/mail/lora/0/step-2"}))
    train(again, 1)
    assert again.measurements["peak_memory_bytes"] < 10**6


def memory_of(lab: Lab, **tasks: TaskSetup) -> WorkerMemory:
    return memory_with(lab, LaneSetup(str(lab.folder), "mail-1", "tiny", "float32", tasks, lab.training, 0, 1))


def answer(memory: WorkerMemory, job: Job) -> tuple[int, dict[str, float], str]:
    run = memory.begin(job)
    assert run.step == job.stop, "there is nothing to train"
    done = memory.finish_job(run).upload()
    assert done.checkpoint is not None
    return done.step, done.metrics, done.checkpoint


def test_untrained_method_is_scored_once_for_all_rungs(prompted: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    scored: list[str] = []
    evaluate = TaskDataset.evaluate
    monkeypatch.setattr(TaskDataset, "evaluate", lambda *a: scored.append(a[-1]) or evaluate(*a))
    memory = memory_of(prompted)
    first = prompted.job("hard_prompt", examples=2, stop=3)
    step, metrics, checkpoint = answer(memory, first)
    assert step == 3
    assert metrics.keys() == {"macro_f1", "accuracy"}
    later = replace(first, start=3, stop=12, checkpoint=checkpoint)
    assert answer(memory, later)[:2] == (12, metrics)
    assert scored == ["validation"]
    # another lane, which has its checkpoint alone
    assert answer(memory_of(prompted), later)[:2] == (12, metrics)
    assert answer(memory_of(prompted), replace(later, start=12, split="test"))[1].keys() == metrics.keys()
    assert scored == ["validation", "validation", "test"]


def test_lane_passes_source_tasks_to_the_method(lab: Lab, sources: dict[str, TaskDataset], tmp_path: Path) -> None:
    config = lab.dataset._config.model_copy(update={"source_tasks": ["many", "few"]})
    memory = memory_of(replace(lab, folder=tmp_path), mail=TaskSetup(config, {}, LABELS, "tiny", None, 0, NAMES))
    memory._datasets |= sources
    run = memory.begin(lab.job("multitask_prompt", tokens=4, source_fraction=0.5))
    stage: Any = run.attached.module.source_stage
    assert [head[-1].out_features for head in stage.heads] == [5, 2]
    assert run.attached.source_steps(12) == 6
    assert memory.begin(lab.job("lora")).attached.source_steps(12) == 0
