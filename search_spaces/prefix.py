"""Prefix tuning: key-value pairs in every layer, optionally from a projection."""

from __future__ import annotations

from optuna.distributions import CategoricalDistribution, IntDistribution

from search_spaces._base import SearchSpace
from search_spaces._training import DEFAULT, SOURCES, training

SPACE = SearchSpace(
    distributions={
        **training(1e-4, 1e-2),
        "tokens": IntDistribution(4, 64, log=True),
        "projection": CategoricalDistribution([False, True]),
        "projection_width": CategoricalDistribution([64, 128, 512]),
        "init": CategoricalDistribution(["tokens", "random", "zero"]),
    },
    default={
        **DEFAULT,
        "learning_rate": 5e-3,
        "weight_decay": 0.0,
        "tokens": 20,
        "projection": False,
        "projection_width": 512,
        "init": "tokens",
    },
    sources={
        **SOURCES,
        "learning_rate": "5e-5 with a projection in arXiv:2101.00190, 5e-3 to 1e-2 without in arXiv:2110.07602",
        "tokens": "10 to 200 in arXiv:2101.00190, 4 to 100 in arXiv:2110.07602",
        "projection": "with in arXiv:2101.00190, without in arXiv:2110.07602",
        "projection_width": "512 in arXiv:2101.00190, less for small models",
        "init": "activations of real words, which do better than random with little data in arXiv:2101.00190",
    },
)
