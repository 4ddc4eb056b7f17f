"""Soft prompts: tiny, and in need of very high rates."""

from __future__ import annotations

from optuna.distributions import CategoricalDistribution, IntDistribution

from search_spaces._base import SearchSpace
from search_spaces._training import DEFAULT, SOURCES, training

SPACE = SearchSpace(
    distributions={
        **training(1e-3, 0.3),
        "tokens": IntDistribution(4, 100, log=True),
        "init": CategoricalDistribution(["vocabulary", "random"]),
    },
    default={
        **DEFAULT,
        "learning_rate": 3e-2,
        "weight_decay": 0.0,
        "tokens": 20,
        "init": "vocabulary",
    },
    sources={
        **SOURCES,
        "learning_rate": "up to the 0.3 of arXiv:2104.08691",
        "tokens": "1 to 150 in arXiv:2104.08691, which gains little beyond 20",
        "init": "random and sampled vocabulary in arXiv:2104.08691",
    },
)
