"""Rank 1 of the test of workers that score; its memory is the smaller."""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa
import torch

from orchestrator.engine.ranks import Ranks
from orchestrator.engine.scoring_limits import ScoringLimits, score_in_fitting_batches
from orchestrator.tasks import Evaluation

from .two_workers import process_group


def score_together(ranks: Ranks) -> list[int]:
    """The token limits that this rank tried; both make the same calls."""
    tried: list[int] = []

    def compute() -> None:
        if ranks.rank and tried[-1] > 5000:
            raise torch.OutOfMemoryError("no room")

    def score(tokens: int) -> Evaluation:
        tried.append(tokens)
        ranks.run_on_all_ranks(compute)
        return Evaluation({}, pa.table({}))

    limits = ScoringLimits()
    device = torch.device("cpu")
    score_in_fitting_batches(score, lambda tokens: (8, tokens), limits, ("lora", "test"), ranks, lambda: None, device)
    return [*tried, limits.tokens("lora", "test")]


def main(folder: Path) -> None:
    with process_group(1, folder) as ranks:
        ranks.all_gather_object(score_together(ranks))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
