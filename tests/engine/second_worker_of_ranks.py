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
    ranks.align(tensors)
    total = torch.tensor([1.0, ranks.rank])
    ranks.add_up(total)
    heard = [
        ranks.leaders({"from": ranks.rank}),
        ranks.leaders(LONG + str(ranks.rank)),
        ranks.everyones(["rank", ranks.rank]),
        [len(one) for one in ranks.gather(b"x" * 3000 * ranks.rank)],
        [tensor.tolist() for tensor in tensors],
        total.tolist(),
        str(ranks.agree(None)),
        str(ranks.agree(ValueError("mine") if ranks.rank else None)),
    ]
    return [*heard, attempted(ranks, 0), attempted(ranks, 1), attempted(ranks, None)]


def attempted(ranks: Ranks, unlucky: int | None) -> str:
    def call() -> str:
        if ranks.rank == unlucky:
            raise ValueError(f"of rank {unlucky}")
        return "fine"

    try:
        return ranks.attempt(call)
    except (ValueError, OtherWorkerError) as error:
        return repr(error)


def main(folder: Path) -> None:
    with process_group(1, folder) as ranks:
        ranks.everyones(conversation(ranks))
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
