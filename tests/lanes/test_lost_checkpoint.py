"""A trial that goes on from a checkpoint, and what a lane does where there is none that it can use."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from orchestrator.common.trial_types import Answer, Job
from orchestrator.lanes.lane import Lane

from ..engine.conftest import Lab, equal, state, train


def done(here: Lane, job: Job) -> Answer:
    run = here.begin(job)
    train(run, job.stop - run.step)
    return here.end(run).write()


def another(here: Lane) -> Lane:
    """A lane that has the same in memory, but no trial."""
    made = Lane(here.setup, torch.device("cpu"), torch.float32)
    made._backbones, made._rows, made.fingerprints = here._backbones, here._rows, here.fingerprints
    return made


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
def test_a_trial_without_its_checkpoint_begins_anew_and_comes_to_the_same(
    lost: str, lab: Lab, here: Lane, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    answer = done(here, lab.job("lora", stop=4))
    whole = here.begin(job := lab.job("lora", start=4, stop=12, checkpoint=answer.checkpoint))
    train(whole, 8)
    LOSSES[lost](tmp_path / "mail-1" / str(answer.checkpoint))
    run = another(here).begin(job)
    assert run.step == 0
    assert f"begins anew: {answer.checkpoint} cannot be used" in caplog.text
    train(run, 12)
    assert equal(state(run), state(whole))


def test_a_checkpoint_that_is_there_is_used(lab: Lab, here: Lane, caplog: pytest.LogCaptureFixture) -> None:
    answer = done(here, lab.job("lora", stop=4))
    run = another(here).begin(lab.job("lora", start=4, stop=12, checkpoint=answer.checkpoint))
    assert run.step == 4
    assert caplog.text == ""
