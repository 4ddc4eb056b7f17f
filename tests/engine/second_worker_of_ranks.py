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


def exchange_values(ranks: Ranks) -> list[object]:
    """What this rank heard; both make the same calls."""
    tensors = [torch.full((2, 3), float(ranks.rank + 1)), torch.arange(4.0) * (ranks.rank + 1)]
    ranks.broadcast_parameters(tensors)
    total = torch.tensor([1.0, ranks.rank])
    ranks.all_reduce(total)
    results = [
        ranks.broadcast_object({"from": ranks.rank}),
        ranks.broadcast_object(LONG + str(ranks.rank)),
        ranks.all_gather_object(["rank", ranks.rank]),
        [len(payload) for payload in ranks.all_gather_bytes(b"x" * 3000 * ranks.rank)],
        [tensor.tolist() for tensor in tensors],
        total.tolist(),
        str(ranks.sync_error(None)),
        str(ranks.sync_error(ValueError("mine") if ranks.rank else None)),
    ]
    return [*results, try_on_all_ranks(ranks, 0), try_on_all_ranks(ranks, 1), try_on_all_ranks(ranks, None)]


def try_on_all_ranks(ranks: Ranks, failing_rank: int | None) -> str:
    def call() -> str:
        if ranks.rank == failing_rank:
            raise ValueError(f"of rank {failing_rank}")
        return "fine"

    try:
        return ranks.run_on_all_ranks(call)
    except (ValueError, OtherWorkerError) as error:
        return repr(error)


def main(folder: Path) -> None:
    with process_group(1, folder) as ranks:
        ranks.all_gather_object(exchange_values(ranks))
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
