"""Last layers: the upper blocks train, the lower ones are frozen."""

from __future__ import annotations

from optuna.distributions import FloatDistribution

from search_spaces._base import SearchSpace
from search_spaces._training import DEFAULT, SOURCES, training

SPACE = SearchSpace(
    distributions={
        **training(1e-5, 5e-4),
        "fraction": FloatDistribution(1 / 6, 1 / 2),
    },
    default={
        **DEFAULT,
        "learning_rate": 5e-5,
        "weight_decay": 0.01,
        "fraction": 1 / 4,
    },
    sources={
        **SOURCES,
        "learning_rate": "BERT fine-tuning and ten times above it, since fewer weights move",
        "fraction": "a quarter of the blocks keeps nine tenths of the quality (arXiv:1911.03090)",
    },
)
