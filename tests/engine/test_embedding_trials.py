"""Trials of embedding models: a pack against trials alone, batches that stay whole, and no poolers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from orchestrator.backbone.checkpoint import write
from orchestrator.backbone.shared import SharedBackbone, load
from orchestrator.backbone.source import Source
from orchestrator.engine.data_parallel import shard
from orchestrator.engine.evaluation import evaluate
from orchestrator.engine.measurements import latency_overheads
from orchestrator.engine.ranks import ALONE, Ranks
from orchestrator.engine.step import train_step
from orchestrator.engine.step_size import StepSize
from orchestrator.engine.task_dataset import TaskDataset
from orchestrator.tasks import TASK_TYPES

from ..architectures import config_of
from ..small_backbone import assert_pack_trains_like_trials_alone, dataset, share, trial, words

METHODS: dict[str, dict[str, Any]] = {"lora": {}, "ia3": {}, "adapter": {"bottleneck": 8}, "prefix": {"tokens": 4}}
PAIRS = [(words(*range(4, 6 + n % 5), 30 + n), words(*range(50, 51 + n % 4), 80 + n)) for n in range(16)]


@pytest.fixture(scope="module", params=["bert", "llama"])
def backbone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SharedBackbone:
    return share(config_of(request.param), "embedding", tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def rows(backbone: SharedBackbone) -> TaskDataset:
    return dataset(backbone, {"train": PAIRS, "validation": PAIRS[:8], "test": PAIRS[8:]})


def test_embedding_pack_trains_like_trials_alone(backbone: SharedBackbone, rows: TaskDataset) -> None:
    assert_pack_trains_like_trials_alone(backbone, rows, METHODS)


def test_embedding_training_brings_pairs_together(backbone: SharedBackbone, rows: TaskDataset) -> None:
    run, batch = trial("lora", backbone, rows, rank=4), rows.batch(np.arange(len(PAIRS)))
    with torch.no_grad():
        before = rows.type.loss(run.attached.module, batch)
    for _ in range(12):
        assert train_step([run]) == []
    run.attached.train(False)
    with torch.no_grad():
        assert rows.type.loss(run.attached.module, batch) < 0.95 * before


def test_embedding_batch_stays_whole_where_memory_is_short(
    backbone: SharedBackbone, rows: TaskDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    full, short = (trial("lora", backbone, rows, dropout=0.0) for _ in range(2))
    forward, sizes = short.dataset.type.loss, []

    def short_of_memory(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        sizes.append(len(batch["labels"]))
        if not short.checkpointed:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(model, batch)

    assert train_step([full]) == []
    monkeypatch.setattr(type(short.dataset.type), "loss", lambda _, model, batch: short_of_memory(model, batch))
    assert train_step([short]) == []
    assert set(sizes) == {4}
    assert short._size == StepSize(1, checkpointed=True)
    for name, value in full.attached.trainable().items():
        torch.testing.assert_close(short.attached.trainable()[name], value, rtol=1e-4, atol=1e-6)


def test_embedding_batch_is_whole_on_every_rank(rows: TaskDataset) -> None:
    batch = rows.batch(next(rows.training_batches(4, 0, 1)))
    for rank in range(3):
        part, weight = shard(batch, Ranks(rank, 3), rows.type)
        assert part == batch
        assert weight == pytest.approx(1 / 3)


def test_embedding_split_is_scored_whole_on_every_rank(backbone: SharedBackbone, rows: TaskDataset) -> None:
    table, batches = rows._tables["test"], rows._evaluation_batches("test", 40)
    arguments = (rows.type, backbone.view(0), table, batches, 0, backbone.decoder)
    assert len(batches) > 2
    alone = evaluate(ALONE, *arguments)
    assert evaluate(Ranks(1, 3), *arguments).predictions.equals(alone.predictions)
    assert alone.predictions.num_rows == 8


def test_embedding_adapter_is_saved_loaded_and_timed(
    backbone: SharedBackbone, rows: TaskDataset, tmp_path: Path
) -> None:
    run = trial("adapter", backbone, rows, bottleneck=8)
    assert train_step([run]) == []
    run.save(tmp_path / "saved", resumable=True)
    again = trial("adapter", backbone, rows, bottleneck=8)
    again.restore(tmp_path / "saved")
    assert again.evaluate("test").metrics == run.evaluate("test").metrics
    assert latency_overheads(run.attached, backbone, rows).keys() == {"latency_overhead_1", "latency_overhead_32"}


@pytest.mark.parametrize("saved_as", ["BertModel", "BertForMaskedLM"])
def test_embedding_backbone_has_no_pooler(saved_as: str, tmp_path: Path) -> None:
    """A masked language model's checkpoint has none; transformers would draw one at random."""
    torch.manual_seed(1)
    saved = getattr(transformers, saved_as)(config_of("bert")).eval()
    saved.save_pretrained(tmp_path / "checkpoint")
    source = Source("tiny", tmp_path / "checkpoint", "tiny", portable=False)
    header = write(source, "AutoModel", "none", True, tmp_path / "plain.safetensors")
    backbone = load(tmp_path / "plain.safetensors", "embedding", name="tiny", dtype=torch.float32)
    assert (header.head, backbone.context.head) == ((), ())
    assert not [name for name, _ in backbone.model.named_parameters() if "pooler" in name]
    batch = dataset(backbone, {"train": PAIRS[:2]}).batch(np.arange(2))
    inner = saved if saved_as == "BertModel" else saved.bert
    kind = TASK_TYPES["embedding"]
    torch.testing.assert_close(kind.forward(backbone.view(0), batch), kind.forward(inner, batch))
