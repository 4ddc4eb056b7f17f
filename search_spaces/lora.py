"""LoRA: low-rank updates."""

from __future__ import annotations

from optuna.distributions import CategoricalDistribution

from search_spaces import _low_rank
from search_spaces._base import SearchSpace

SPACE = SearchSpace(
    distributions={
        **_low_rank.DISTRIBUTIONS,
        "targets": _low_rank.TARGETS,
        # and loftq, where the backbone is quantized: it makes a sweep keep the unquantized checkpoint as well
        "init": CategoricalDistribution(["default", "pissa", "olora"]),
    },
    default={
        **_low_rank.DEFAULT,
        "targets": "all_linear",
        "init": "default",
    },
    sources={
        **_low_rank.SOURCES,
        "targets": "query and value in arXiv:2106.09685; all linear layers in arXiv:2305.14314",
        "init": "zero in arXiv:2106.09685; principal parts in arXiv:2404.02948, orthonormal ones in arXiv:2406.01775",
    },
)
