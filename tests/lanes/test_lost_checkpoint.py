"""A trial that resumes from its checkpoint, and what a lane does if that is missing or damaged."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from orchestrator.common.trial_types import Answer, Job
from orchestrator.lanes.lane import Lane

from ..engine.conftest import Lab, equal, state, train


def finish(lane: Lane, job: Job) -> Answer:
    run = lane.begin(job)
    train(run, job.stop - run.step)
    return lane.finish_job(run).upload()


def fresh_lane(lane: Lane) -> Lane:
    """Return a lane with the same backbone and dataset in memory, but no trials."""
    copy = Lane(lane.setup, torch.device("cpu"), torch.float32)
    copy._backbones, copy._datasets, copy.fingerprints = (
        lane._backbones,
        lane._datasets,
        lane.fingerprints,
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
    lost: str, lab: Lab, lane: Lane, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    answer = finish(lane, lab.job("lora", stop=4))
    uninterrupted = lane.begin(job := lab.job("lora", start=4, stop=12, checkpoint=answer.checkpoint))
    train(uninterrupted, 8)
    LOSSES[lost](tmp_path / "mail-1" / str(answer.checkpoint))
    run = fresh_lane(lane).begin(job)
    assert run.step == 0
    assert f"starts again at step 0: {answer.checkpoint} cannot be used" in caplog.text
    train(run, 12)
    assert equal(state(run), state(uninterrupted))


def test_checkpoint_is_used_where_it_exists(lab: Lab, lane: Lane, caplog: pytest.LogCaptureFixture) -> None:
    answer = finish(lane, lab.job("lora", stop=4))
    run = fresh_lane(lane).begin(lab.job("lora", start=4, stop=12, checkpoint=answer.checkpoint))
    assert run.step == 4
    assert caplog.text == ""
