"""Rank 1 of the test of a lane with two GPUs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from orchestrator.engine.data_parallel import all_reduce_gradients
from orchestrator.engine.ranks import Ranks

from .two_workers import process_group

BACKEND = "cpu:gloo,cuda:nccl"


class Trial:
    """A layer on the rank's own GPU."""

    def __init__(self, rank: int) -> None:
        torch.cuda.set_device(rank)
        layer = nn.Linear(3, 2, device="cuda")
        self.parameters = list(layer.parameters())
        layer(torch.ones(1, 3, device="cuda") * (rank + 1)).sum().backward()


def sum_gradients(ranks: Ranks) -> list[Any]:
    run = Trial(ranks.rank)
    (loss,) = all_reduce_gradients(ranks, [run], [torch.tensor(ranks.rank + 0.5, device="cuda")])
    assert isinstance(loss, torch.Tensor)
    gradients = [parameter.grad.tolist() for parameter in run.parameters if parameter.grad is not None]
    return [str(loss.device), float(loss), gradients]


def main(folder: Path) -> None:
    with process_group(1, folder, BACKEND) as ranks:
        ranks.all_gather_object(sum_gradients(ranks))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
