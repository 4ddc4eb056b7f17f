"""A trial that resumes from its checkpoint, and what a lane does if that is missing or damaged."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from orchestrator.common.trial_types import Answer, Job
from orchestrator.lanes.worker_memory import WorkerMemory

from ..engine.conftest import Lab, equal, state, train


def finish(memory: WorkerMemory, job: Job) -> Answer:
    run = memory.begin(job)
    train(run, job.stop - run.step)
    return memory.finish_job(run).upload()


def fresh_memory(memory: WorkerMemory) -> WorkerMemory:
    """Return another worker's memory, with the same backbone and dataset but no trials."""
    copy = WorkerMemory(memory.setup, torch.device("cpu"), torch.float32)
    copy._backbones, copy._datasets, copy.fingerprints = (
        memory._backbones,
        memory._datasets,
        memory.fingerprints,
    )
    return copy


def cut(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])


LOSSES: dict[str, Callable[[Path], None]] = {
    "all of it": shutil.rmtree,
    "the optimizer's state": lambda folder: (folder / "state.safetensors").unlink(),
    "where it was": lambda folder: (folder / "state.json").unlink(),
    "half of the state": lambda folder: cut(folder, "state.safetensors"),
    "half of where it was": lambda folder: cut(folder, "state.json"),
}


@pytest.mark.parametrize("lost", LOSSES)
def test_lost_checkpoint_restarts_the_trial_with_the_same_result(
    lost: str, lab: Lab, memory: WorkerMemory, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    answer = finish(memory, lab.job("lora", stop=4))
    uninterrupted = memory.begin(job := lab.job("lora", start=4, stop=12, checkpoint=answer.checkpoint))
    train(uninterrupted, 8)
    LOSSES[lost](tmp_path / "mail-1" / str(answer.checkpoint))
    run = fresh_memory(memory).begin(job)
    assert run.step == 0
    assert f"starts again at step 0: {answer.checkpoint} cannot be used" in caplog.text
    train(run, 12)
    assert equal(state(run), state(uninterrupted))


def test_checkpoint_is_used_where_it_exists(lab: Lab, memory: WorkerMemory, caplog: pytest.LogCaptureFixture) -> None:
    answer = finish(memory, lab.job("lora", stop=4))
    run = fresh_memory(memory).begin(lab.job("lora", start=4, stop=12, checkpoint=answer.checkpoint))
    assert run.step == 4
    assert caplog.text == ""
