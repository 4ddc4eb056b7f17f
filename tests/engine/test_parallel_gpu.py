"""A lane with two GPUs: gradients meet there, and words on the processor."""

from pathlib import Path

import pytest
import torch

from .second_worker_of_gpus import BACKEND, summed
from .two_workers import second_worker

GPUS = torch.cuda.device_count()


@pytest.mark.gpu
@pytest.mark.skipif(GPUS < 2, reason=f"a lane of two workers needs two GPUs; there are {GPUS}")
def test_gradients_are_summed_over_gpus(tmp_path: Path) -> None:
    with second_worker("second_worker_of_gpus", tmp_path, BACKEND) as ranks:
        mine, others = ranks.all_gather_object(summed(ranks))
    assert (mine[0], others[0]) == ("cuda:0", "cuda:1")
    assert mine[1:] == others[1:] == [2.0, [[[3.0] * 3] * 2, [2.0] * 2]]
