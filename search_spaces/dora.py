"""DoRA: magnitudes and low-rank directions."""

from __future__ import annotations

from search_spaces import _low_rank
from search_spaces._base import SearchSpace

SPACE = SearchSpace(
    distributions={**_low_rank.DISTRIBUTIONS, "targets": _low_rank.TARGETS},
    default={**_low_rank.DEFAULT, "learning_rate": 2e-4, "targets": "all_linear"},
    sources={
        **_low_rank.SOURCES,
        "learning_rate": "1e-4 and 2e-4 in arXiv:2402.09353, which takes a little less than for LoRA",
        "rank": "4 to 64 in arXiv:2402.09353, where half of LoRA's is enough; up to LoRA's own",
        "alpha_ratio": "2 throughout arXiv:2402.09353",
        "dropout": "0.05 in arXiv:2402.09353, none in peft's defaults",
        "targets": "query, key, value and feed-forward in arXiv:2402.09353, and LoRA's choices",
    },
)
