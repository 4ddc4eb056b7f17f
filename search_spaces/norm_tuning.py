"""Norm tuning: few parameters, higher learning rates than for whole matrices."""

from __future__ import annotations

from search_spaces._base import SearchSpace
from search_spaces._training import DEFAULT, SOURCES, training

SPACE = SearchSpace(
    distributions={
        **training(1e-4, 1e-2),
    },
    default={
        **DEFAULT,
        "learning_rate": 1e-3,
        "weight_decay": 0.0,
    },
    sources={
        **SOURCES,
        "learning_rate": "about the range of other methods that train a vector per layer, such as arXiv:2106.10199",
    },
)
