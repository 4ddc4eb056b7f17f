"""Deep prompt: key-value pairs in every layer, trained directly."""

from __future__ import annotations

from optuna.distributions import CategoricalDistribution, IntDistribution

from search_spaces._base import SearchSpace
from search_spaces._training import DEFAULT, SOURCES, training

SPACE = SearchSpace(
    distributions={
        **training(1e-4, 3e-2),
        "tokens": IntDistribution(4, 100, log=True),
        "init": CategoricalDistribution(["small", "tokens", "random"]),
        "dropout": CategoricalDistribution([0.0, 0.1]),
    },
    default={
        **DEFAULT,
        "learning_rate": 5e-3,
        "weight_decay": 0.0,
        "tokens": 20,
        "init": "tokens",
        "dropout": 0.1,
    },
    sources={
        **SOURCES,
        "learning_rate": "5e-3 to 1e-2 in arXiv:2110.07602",
        "tokens": "4 to 128 in arXiv:2110.07602: few for simple classification, around 100 for hard tagging",
        "init": "random in arXiv:2110.07602; activations of real words do better with little data in arXiv:2101.00190",
        "dropout": "0.1 in arXiv:2110.07602",
    },
)
