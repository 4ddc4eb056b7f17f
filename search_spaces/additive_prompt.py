"""Additive prompt: vectors that are added to the input embeddings."""

from __future__ import annotations

from optuna.distributions import IntDistribution

from search_spaces._base import SearchSpace
from search_spaces._training import DEFAULT, SOURCES, training

SPACE = SearchSpace(
    distributions={
        **training(1e-4, 1e-1),
        "tokens": IntDistribution(1, 64, log=True),
    },
    default={
        **DEFAULT,
        "learning_rate": 1e-2,
        "weight_decay": 0.0,
        "tokens": 1,
    },
    sources={
        **SOURCES,
        "learning_rate": "below that of virtual tokens: the vectors add to embeddings whose entries are hundredths",
        "tokens": "one vector for all tokens, up to the length of a short row",
    },
)
