"""Bottleneck adapters."""

from __future__ import annotations

from optuna.distributions import CategoricalDistribution, IntDistribution

from search_spaces._base import SearchSpace
from search_spaces._training import DEFAULT, SOURCES, training

SPACE = SearchSpace(
    distributions={
        **training(1e-4, 5e-3),
        "placement": CategoricalDistribution(["houlsby", "pfeiffer", "parallel"]),
        "bottleneck": IntDistribution(4, 256, log=True),
        "activation": CategoricalDistribution(["relu", "gelu", "silu"]),
        "scale": CategoricalDistribution([1.0, 2.0, 4.0]),
        "dropout": CategoricalDistribution([0.0, 0.1]),
    },
    default={
        **DEFAULT,
        "learning_rate": 1e-3,
        "weight_decay": 0.0,
        "placement": "pfeiffer",
        "bottleneck": 64,
        "activation": "relu",
        "scale": 1.0,
        "dropout": 0.0,
    },
    sources={
        **SOURCES,
        "learning_rate": "3e-5 to 3e-3 in arXiv:1902.00751, 1e-4 in arXiv:2005.00247",
        "placement": "arXiv:1902.00751, arXiv:2005.00247, arXiv:2110.04366",
        "bottleneck": "2 to 512 in arXiv:1902.00751; 48 and 64 are usual",
        "activation": "gelu in arXiv:1902.00751, relu in arXiv:2005.00247, swish in later encoders",
        "scale": "1 without scaling, 4 beside the feed-forward in arXiv:2110.04366",
        "dropout": "none and 0.1",
    },
)
