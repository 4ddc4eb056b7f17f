"""Multitask prompt: soft prompts of two stages, the first on other tasks."""

from __future__ import annotations

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from search_spaces._base import SearchSpace
from search_spaces._training import DEFAULT, SOURCES, training

SPACE = SearchSpace(
    distributions={
        **training(1e-3, 0.3),
        "tokens": IntDistribution(4, 100, log=True),
        "ranks": IntDistribution(1, 8, log=True),
        "init": CategoricalDistribution(["vocabulary", "random"]),
        "source_fraction": FloatDistribution(0.05, 0.2),
        "transfer": CategoricalDistribution(["average", "first", "shared"]),
        "target_lr_ratio": FloatDistribution(0.25, 4.0, log=True),
    },
    default={
        **DEFAULT,
        "learning_rate": 3e-2,
        "weight_decay": 0.0,
        "tokens": 20,
        "ranks": 1,
        "init": "vocabulary",
        "source_fraction": 0.2,
        "transfer": "average",
        "target_lr_ratio": 1.0,
    },
    sources={
        **SOURCES,
        "learning_rate": "up to the 0.3 of arXiv:2303.02861",
        "tokens": "100 in arXiv:2303.02861; as for soft prompts",
        "ranks": "1 in arXiv:2303.02861; more as peft allows",
        "init": "as for soft prompts",
        "source_fraction": "less than the first rung, where trials are compared on the task itself",
        "transfer": "the three ways of peft; arXiv:2303.02861 averages",
        "target_lr_ratio": "each stage has a rate of its own in arXiv:2303.02861",
    },
)
