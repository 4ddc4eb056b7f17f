"""BitFit: biases, few parameters with higher learning rates than whole matrices."""

from __future__ import annotations

from optuna.distributions import CategoricalDistribution

from search_spaces._base import SearchSpace
from search_spaces._training import DEFAULT, SOURCES, training

SPACE = SearchSpace(
    distributions={
        **training(1e-4, 1e-2),
        "biases": CategoricalDistribution(["all", "query_mlp"]),
    },
    default={
        **DEFAULT,
        "learning_rate": 1e-3,
        "weight_decay": 0.0,
        "biases": "all",
    },
    sources={
        **SOURCES,
        "learning_rate": "1e-4 to 1e-3 in arXiv:2106.10199, up to 1e-2 for small backbones",
        "biases": "all, and the two kinds that arXiv:2106.10199 found to be enough",
    },
)
