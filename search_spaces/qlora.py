"""QLoRA: low-rank updates of every linear layer of a 4-bit backbone."""

from __future__ import annotations

from search_spaces import _low_rank
from search_spaces._base import SearchSpace

SPACE = SearchSpace(
    distributions=_low_rank.DISTRIBUTIONS,
    # 2e-4, alpha a quarter of rank 64 and dropout 0.1 for the smaller models of arXiv:2305.14314
    default={**_low_rank.DEFAULT, "learning_rate": 2e-4, "rank": 16, "alpha_ratio": 1.0, "dropout": 0.1},
    sources={
        **_low_rank.SOURCES,
        "learning_rate": "1e-4 and 2e-4 in arXiv:2305.14314, where rates and ranks are those of LoRA",
        "rank": "8 to 256 in arXiv:2305.14314, which finds little difference between them",
        "alpha_ratio": "a quarter in arXiv:2305.14314; 1 and 2 are usual at lower ranks",
    },
)
