"""Prompt tuning: soft prompts, few parameters with very high learning rates."""

from __future__ import annotations

from optuna.distributions import CategoricalDistribution, IntDistribution

from search_spaces._base import SearchSpace
from search_spaces._training import DEFAULT, SOURCES, training

SPACE = SearchSpace(
    distributions={
        **training(1e-3, 0.3),
        "tokens": IntDistribution(4, 100, log=True),
        "init": CategoricalDistribution(["vocabulary", "random", "text"]),
        "init_text": CategoricalDistribution([""]),
    },
    default={
        **DEFAULT,
        "learning_rate": 3e-2,
        "weight_decay": 0.0,
        "tokens": 20,
        "init": "vocabulary",
        "init_text": "",
    },
    sources={
        **SOURCES,
        "learning_rate": "up to the 0.3 of arXiv:2104.08691",
        "tokens": "1 to 150 in arXiv:2104.08691, which gains little beyond 20",
        "init": "random, sampled vocabulary and the classes' names in arXiv:2104.08691",
        "init_text": "the classes' names; to start from an instruction, set this and fix init to text",
    },
    texts=frozenset({"init_text"}),
)
