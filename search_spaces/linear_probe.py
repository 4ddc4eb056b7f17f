"""The head alone: it starts from nothing and bears high rates."""

from __future__ import annotations

from optuna.distributions import CategoricalDistribution

from search_spaces._base import SearchSpace
from search_spaces._training import DEFAULT, SOURCES, training

SPACE = SearchSpace(
    distributions={
        **training(1e-4, 1e-1),
        "dropout": CategoricalDistribution([0.0, 0.1, 0.3]),
    },
    default={
        **DEFAULT,
        "learning_rate": 1e-2,
        "weight_decay": 0.0,
        "dropout": 0.0,
    },
    sources={
        **SOURCES,
        "learning_rate": "the widest of all methods: a convex problem on frozen features",
        "dropout": "none, the 0.1 of BERT heads, and more",
    },
)
