"""Trials of encoder-decoders: in a pack, in parts, with checkpointed blocks, saved and timed."""

from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.engine.checkpointed_blocks import block_names
from orchestrator.engine.measurements import latency_overheads
from orchestrator.engine.step import train_step
from orchestrator.engine.step_size import StepSize
from orchestrator.engine.task_dataset import TaskDataset

from ..architectures import config_of
from ..small_backbone import assert_pack_trains_like_trials_alone, dataset, share, trial, words

METHODS: dict[str, dict[str, Any]] = {"lora": {}, "ia3": {}, "adapter": {"bottleneck": 8}, "deep_prompt": {"tokens": 4}}
PAIRS = [(words(*range(4, 6 + n)), words(*range(50, 51 + n % 4))) for n in range(12)]


@pytest.fixture(scope="module", params=["t5", "bart"])
def backbone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return share(config_of(request.param), "seq2seq", tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def rows(backbone: Any) -> TaskDataset:
    return dataset(backbone, {"train": PAIRS, "validation": PAIRS[:5], "test": PAIRS[5:]})


def test_seq2seq_pack_has_the_losses_of_trials_alone(backbone: Any, rows: TaskDataset) -> None:
    assert_pack_trains_like_trials_alone(backbone, rows, METHODS)


@pytest.mark.parametrize("size", [StepSize(2), StepSize(1, checkpointed=True)], ids=["parts", "checkpointed"])
def test_seq2seq_step_in_parts_trains_like_the_whole(backbone: Any, rows: TaskDataset, size: StepSize) -> None:
    full, split = (trial("lora", backbone, rows, dropout=0.0) for _ in range(2))
    split._resize(size)
    assert len(block_names(split._view)) == 4
    for _ in range(3):
        assert train_step([full]) == train_step([split]) == []
    for name, value in full.attached.trainable().items():
        torch.testing.assert_close(split.attached.trainable()[name], value, rtol=1e-3, atol=2e-3)


def test_seq2seq_adapter_is_saved_loaded_and_timed(backbone: Any, rows: TaskDataset, tmp_path: Path) -> None:
    run = trial("lora", backbone, rows)
    assert train_step([run]) == []
    run.save(tmp_path / "saved", resumable=True)
    again = trial("lora", backbone, rows)
    again.restore(tmp_path / "saved")
    assert again.evaluate("test").metrics == run.evaluate("test").metrics
    assert latency_overheads(run.attached, backbone, rows).keys() == {"latency_overhead_1", "latency_overhead_32"}
