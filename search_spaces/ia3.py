"""IA3: scaling vectors, few parameters with high learning rates."""

from __future__ import annotations

from optuna.distributions import CategoricalDistribution

from search_spaces._base import SearchSpace
from search_spaces._training import DEFAULT, SOURCES, training

SPACE = SearchSpace(
    distributions={
        **training(1e-3, 1e-1),
        "targets": CategoricalDistribution(["attention", "feed_forward", "attention_feed_forward"]),
    },
    default={
        **DEFAULT,
        "learning_rate": 3e-3,
        "weight_decay": 0.0,
        "targets": "attention_feed_forward",
    },
    sources={
        **SOURCES,
        "learning_rate": "3e-3 in arXiv:2205.05638; its method comparison in peft was best well above it",
        "targets": "keys, values and feed-forward in arXiv:2205.05638, and its ablations",
    },
)
