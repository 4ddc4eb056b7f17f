"""A lane with two GPUs: gradients meet there, and words on the processor."""

from pathlib import Path

import pytest
import torch

from .second_worker_of_gpus import BACKEND, sum_gradients
from .two_workers import second_worker

GPUS = torch.cuda.device_count()


@pytest.mark.gpu
@pytest.mark.skipif(GPUS < 2, reason=f"a lane of two workers needs two GPUs; there are {GPUS}")
def test_all_reduce_sums_gradients_over_gpus(tmp_path: Path) -> None:
    with second_worker("tests.engine.second_worker_of_gpus", tmp_path, BACKEND) as ranks:
        first, second = ranks.all_gather_object(sum_gradients(ranks))
    assert (first[0], second[0]) == ("cuda:0", "cuda:1")
    assert first[1:] == second[1:] == [2.0, [[[3.0] * 3] * 2, [2.0] * 2]]
