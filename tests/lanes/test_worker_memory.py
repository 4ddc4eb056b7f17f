"""What a worker measures and scores at the end of a job, and what it passes to a new trial."""

from __future__ import annotations

import copy
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import methods
from methods.parts import low_rank_init
from orchestrator.common.trial_types import Answer, Job
from orchestrator.engine import measurements
from orchestrator.engine import memory as memory_module
from orchestrator.engine.task_dataset import TaskDataset
from orchestrator.engine.trial_run import TrialRun
from orchestrator.lanes import worker_memory
from orchestrator.lanes.setup import LaneSetup, TaskSetup
from orchestrator.lanes.step_watch import Hang, StepWatch
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


def test_first_measurement_after_rungs_without_any_is_no_hang(
    lab: Lab, memory: WorkerMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, hangs = [0.0], list[Hang | None]()
    watch = memory._watch = StepWatch(clock=lambda: now[0])

    def measure_slowly(*arguments: Any) -> dict[str, float]:
        for _ in range(100):
            now[0] += 1.0
            hangs.append(watch.tick())
        return {"latency_overhead_1": 0.25}

    monkeypatch.setattr(measurements, "latency_overheads", measure_slowly)
    first = lab.job("lora", stop=4)
    last = replace(first, start=4, stop=12, checkpoint="checkpoints/mail/lora/0/step-4")
    for job in (first, last):
        run = memory.begin(job)
        train(run, job.stop - run.step)
        memory.finish_job(run).upload()
    assert hangs == [None] * 100


@pytest.mark.parametrize("split", [None, "validation", "test"])
def test_trial_outlives_a_measurement_without_memory(lab: Lab, memory: WorkerMemory, split: str | None) -> None:
    """Its latency is measured on 32 rows, which are more than a batch that it scores."""
    memory.setup = replace(memory.setup, training=memory.setup.training.model_copy(update={"evaluation_batch": 8}))
    run = memory.begin(lab.job("lora", split=split))
    run.dataset = copy.copy(lab.dataset)
    run.dataset.training = memory.setup.training
    train(run, 12)

    def check(_: object, __: object, kwargs: dict[str, Any]) -> None:
        if len(kwargs["input_ids"]) == 32:
            raise torch.OutOfMemoryError("no room")

    run.attached.module.register_forward_pre_hook(check, with_kwargs=True)
    answer = memory.finish_job(run).upload()
    assert answer.status == "done"
    assert (answer.metrics != {}) == (split is not None)
    assert not {"latency_overhead_1", "latency_overhead_32"} & answer.measurements.keys()
    assert ("validation_standard_error" in answer.measurements) == (split == "validation")


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
    monkeypatch.setattr(TaskDataset, "evaluate", lambda *a: scored.append(a[2]) or evaluate(*a))
    memory = memory_of(prompted)
    first = prompted.job("hard_prompt", examples=2, stop=3)
    step, metrics, checkpoint = answer(memory, first)
    assert step == 3
    assert metrics.keys() == {"macro_f1", "accuracy", "mcc", "balanced_accuracy", "roc_auc"}
    later = replace(first, start=3, stop=12, checkpoint=checkpoint)
    assert answer(memory, later)[:2] == (12, metrics)
    assert scored == ["validation"]
    # another lane, which has its checkpoint alone
    assert answer(memory_of(prompted), later)[:2] == (12, metrics)
    assert answer(memory_of(prompted), replace(later, start=12, split="test"))[1].keys() == metrics.keys()
    assert scored == ["validation", "validation", "test"]


def test_trial_is_scored_before_its_first_step(lab: Lab, memory: WorkerMemory) -> None:
    step, metrics, checkpoint = answer(memory, lab.job("lora", stop=0, split="test"))
    assert (step, checkpoint) == (0, "checkpoints/mail/lora/0/step-0-test")
    run = memory.begin(lab.job("lora", 1, seed=7))
    assert metrics == run.evaluate("test").metrics


def test_lane_passes_source_tasks_to_the_method(lab: Lab, sources: dict[str, TaskDataset], tmp_path: Path) -> None:
    config = lab.dataset._config.model_copy(update={"source_tasks": ["many", "few"]})
    memory = memory_of(replace(lab, folder=tmp_path), mail=TaskSetup(config, {}, LABELS, "tiny", None, 0, NAMES))
    memory._datasets |= sources
    run = memory.begin(lab.job("multitask_prompt", tokens=4, source_fraction=0.5))
    stage: Any = run.attached.module.source_stage
    assert [head[-1].out_features for head in stage.heads] == [5, 2]
    assert run.attached.source_steps(12) == 6
    assert memory.begin(lab.job("lora")).attached.source_steps(12) == 0


def continued(job: Job, stop: int) -> Job:
    checkpoint = f"checkpoints/{job.trial.study}/{job.trial.number}/step-{job.stop}"
    return replace(job, start=job.stop, stop=stop, checkpoint=checkpoint)


def run_job(memory: WorkerMemory, job: Job) -> TrialRun:
    run = memory.begin(job)
    train(run, job.stop - run.step)
    memory.finish_job(run).upload()
    return run


def test_paused_trials_are_bounded_by_free_memory(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = memory_with(lab, LaneSetup(str(tmp_path), "mail-1", "tiny", "float32", {}, lab.training, 0, pack=7))
    free = [10**9]
    monkeypatch.setattr(worker_memory, "free_bytes", lambda device: free[0])
    jobs = [lab.job("lora", number, stop=1) for number in range(4)]
    runs = [run_job(memory, job) for job in jobs[:3]]
    assert [memory.begin(continued(job, 2)) for job in jobs[:3]] == runs, "all are there"
    for run in runs:
        train(run, 1)
        memory.finish_job(run).upload()
    free[0] = 0
    held = runs[0].held_bytes
    assert held > 0
    run_job(memory, jobs[3])
    assert memory._paused.keys() == {jobs[2].name, jobs[3].name}, "half of what is free without them"
    again = memory.begin(continued(replace(jobs[0], stop=2), 3))
    assert again not in runs
    assert again.step == 2, "from its checkpoint"


def test_attaching_is_tried_again_without_paused_trials(
    lab: Lab, memory: WorkerMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    paused = run_job(memory, lab.job("last_layers", stop=1, fraction=0.5))
    gone = weakref.ref(paused)
    del paused
    assert memory._prefix("mail").cached_bytes > 0
    attach, attempts = methods.get("lora").attach, []

    def attach_in_little_memory(*arguments: Any) -> Any:
        attempts.append(1)
        if gone() or memory._prefix("mail").cached_bytes:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return attach(*arguments)

    spec = replace(methods.get("lora"), attach=attach_in_little_memory)
    monkeypatch.setattr(methods, "get", lambda name: spec)
    run = memory.begin(lab.job("lora", stop=1))
    assert len(attempts) == 2
    train(run, 1)


def test_attaching_fails_if_memory_is_short_twice(
    lab: Lab, memory: WorkerMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def attach(*_: object) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    spec = replace(methods.get("lora"), attach=attach)
    monkeypatch.setattr(methods, "get", lambda name: spec)
    with pytest.raises(torch.OutOfMemoryError):
        memory.begin(lab.job("lora"))


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_resuming_repeats_no_decomposition_of_weights(
    lab: Lab, memory: WorkerMemory, monkeypatch: pytest.MonkeyPatch, init: str
) -> None:
    first = lab.job("lora", stop=2, init=init)
    run = run_job(memory, first)
    memory.free()
    decomposed: list[int] = []
    factors = low_rank_init._weight_factors
    monkeypatch.setattr(low_rank_init, "_weight_factors", lambda *a: decomposed.append(1) or factors(*a))
    again = memory.begin(continued(first, 4))
    assert again is not run
    assert decomposed == []
    train(run, 2)
    train(again, 2)
    for name, value in run.attached.trainable().items():
        assert torch.equal(again.attached.trainable()[name], value), name
    memory.begin(lab.job("lora", 1, init=init))
    assert decomposed, "a new trial starts from them"


def test_answer_has_the_curve_of_its_job_alone(lab: Lab, memory: WorkerMemory) -> None:
    def answer(job: Job) -> Answer:
        run = memory.begin(job)
        train(run, job.stop - run.step)
        return memory.finish_job(run).upload()

    first = lab.job("ia3", stop=4)
    assert answer(first).curve["step"] == [1, 2, 3, 4]
    second = Job(**{**vars(first), "start": 4, "stop": 7, "checkpoint": "checkpoints/mail/ia3/0/step-4"})
    assert answer(second).curve["step"] == [5, 6, 7]
    retraining = Job(**{**vars(first), "retraining": 0, "split": None})
    assert answer(retraining).curve == {}, "it has no run in MLflow"
