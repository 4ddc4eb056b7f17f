"""Rank 1 of the test of what ranks say to one another."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch

from orchestrator.engine.ranks import OtherWorkerError, Ranks

from .two_workers import process_group

LONG = "a long message " * 1000


def conversation(ranks: Ranks) -> list[object]:
    """What this rank heard; both make the same calls."""
    tensors = [torch.full((2, 3), float(ranks.rank + 1)), torch.arange(4.0) * (ranks.rank + 1)]
    ranks.broadcast_parameters(tensors)
    total = torch.tensor([1.0, ranks.rank])
    ranks.all_reduce(total)
    message = [
        ranks.broadcast_object({"from": ranks.rank}),
        ranks.broadcast_object(LONG + str(ranks.rank)),
        ranks.all_gather_object(["rank", ranks.rank]),
        [len(one) for one in ranks.gather(b"x" * 3000 * ranks.rank)],
        [tensor.tolist() for tensor in tensors],
        total.tolist(),
        str(ranks.sync_error(None)),
        str(ranks.sync_error(ValueError("mine") if ranks.rank else None)),
    ]
    return [*message, attempted(ranks, 0), attempted(ranks, 1), attempted(ranks, None)]


def attempted(ranks: Ranks, unlucky: int | None) -> str:
    def call() -> str:
        if ranks.rank == unlucky:
            raise ValueError(f"of rank {unlucky}")
        return "fine"

    try:
        return ranks.run_on_all_ranks(call)
    except (ValueError, OtherWorkerError) as error:
        return repr(error)


def main(folder: Path) -> None:
    with process_group(1, folder) as ranks:
        ranks.all_gather_object(conversation(ranks))
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
