"""Linear probe: the head alone, whose convex problem allows high learning rates."""

from __future__ import annotations

from optuna.distributions import CategoricalDistribution

from search_spaces._base import SearchSpace
from search_spaces._training import DEFAULT, SOURCES, training

SPACE = SearchSpace(
    distributions={
        **training(1e-4, 1e-1),
        "pooling": CategoricalDistribution(["head", "mean"]),
        "dropout": CategoricalDistribution([0.0, 0.1, 0.3]),
    },
    default={
        **DEFAULT,
        "learning_rate": 1e-2,
        "weight_decay": 0.0,
        "pooling": "head",
        "dropout": 0.0,
    },
    sources={
        **SOURCES,
        "learning_rate": "the widest of all methods: a convex problem on frozen features",
        "pooling": "the model's own, and the mean, which sentence encoders are trained with (arXiv:1908.10084)",
        "dropout": "none, the 0.1 of BERT heads, and more",
    },
)
