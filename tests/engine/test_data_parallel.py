"""Shards of a batch, and the random streams of ranks."""

import pytest
import torch

from orchestrator.engine.data_parallel import dropout_stream, shard
from orchestrator.engine.random_stream import RandomStream
from orchestrator.engine.ranks import Ranks
from orchestrator.tasks.causal_lm import CausalLM
from orchestrator.tasks.classification import Classification

ROWS = [(5, 2), (1, 3), (3, 4), (4, 1)]


@pytest.mark.parametrize(("rows", "size"), ROWS)
def test_shards_of_a_batch_add_up_to_it(rows: int, size: int) -> None:
    """Weighted by labels: of rows, or of tokens, where some rows have none."""
    tokens = torch.arange(rows * 4).reshape(rows, 4)
    labels = tokens.where(tokens % 3 > 0, -100)
    batches = {"input_ids": tokens, "labels": tokens[:, 0]}, {"input_ids": tokens, "labels": labels}
    for type_, batch in zip((Classification(), CausalLM()), batches, strict=True):
        per_row = ((batch["labels"][:, 1:] != -100).sum(1) if batch["labels"].dim() == 2 else torch.ones(rows)).float()
        total = 0.0
        for rank in range(size):
            part, weight = shard(batch, Ranks(rank, size), type_)
            in_shard = torch.isin(tokens[:, 0], part["input_ids"][:, 0])
            if weight:
                assert weight == pytest.approx(float(per_row[in_shard].sum() / per_row.sum()))
            assert per_row[in_shard].sum() > 0, "the mean over no labels is NaN"
            total += weight
        assert total == pytest.approx(1.0)


def test_dropout_streams_differ_by_rank_and_repeat() -> None:
    stream = RandomStream.capture(torch.device("cpu"))
    assert dropout_stream(3, 5, Ranks(0, 2), stream) is stream
    draws = {
        (seed, step, rank): bytes(dropout_stream(seed, step, Ranks(rank, 4), stream).cpu.numpy())
        for seed, step, rank in [(3, 5, 1), (3, 5, 2), (3, 6, 1), (4, 5, 1)]
    }
    assert len(set(draws.values())) == 4
    assert draws[3, 5, 1] == bytes(dropout_stream(3, 5, Ranks(1, 4), stream).cpu.numpy())
