"""A checkpoint holds each parameter once, is read back bit for bit, and only by the trial that wrote it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from .conftest import Lab, equal, state, train


def test_checkpoint_holds_each_parameter_once(lab: Lab, tmp_path: Path) -> None:
    run = lab.run("full")
    train(run, 2)
    run.save(tmp_path, resumable=True)
    size = sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())
    parameters = sum(p.numel() * p.element_size() for p in run.attached.trainable().values())
    moments = 2 * parameters
    assert size < 1.15 * (parameters + moments)
    again = lab.run("full")
    again.restore(tmp_path)
    assert equal(state(again), state(run))


def test_checkpoint_of_an_earlier_release_is_read(lab: Lab, tmp_path: Path) -> None:
    run = lab.run("lora")
    train(run, 3)
    run.save(tmp_path, resumable=True)
    file, record = tmp_path / "state.safetensors", json.loads((tmp_path / "state.json").read_text())
    assert record["in_adapter"]
    tensors = load_file(file)
    assert not any(name.startswith("parameter:") for name in tensors), "all of them are in the adapter"
    parameters = {f"parameter:{name}": p.detach().contiguous() for name, p in run.attached.trainable().items()}
    save_file({**tensors, **parameters}, file)
    (tmp_path / "state.json").write_text(json.dumps({"step": 3, "facts": record["measurements"]}))
    again = lab.run("lora")
    again.restore(tmp_path)
    assert equal(state(again), state(run))
    train(again, 2)
    train(run, 2)
    assert equal(state(again), state(run))


def test_checkpoint_of_another_configuration_is_refused(lab: Lab, tmp_path: Path) -> None:
    run = lab.run("lora", rank=2)
    train(run, 1)
    run.save(tmp_path, resumable=True)
    with pytest.raises(ValueError, match="it is of another configuration"):
        lab.run("lora", rank=2, learning_rate=0.5).restore(tmp_path)
    with torch.no_grad():
        lab.run("lora", rank=2).restore(tmp_path)
