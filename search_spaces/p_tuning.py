"""P-tuning: soft prompts from a small network."""

from __future__ import annotations

from optuna.distributions import CategoricalDistribution, IntDistribution

from search_spaces._base import SearchSpace
from search_spaces._training import DEFAULT, SOURCES, training

SPACE = SearchSpace(
    distributions={
        **training(1e-4, 1e-2),
        "tokens": IntDistribution(4, 100, log=True),
        "encoder": CategoricalDistribution(["mlp", "lstm"]),
        "width": CategoricalDistribution([64, 128, 256]),
        "depth": IntDistribution(1, 2),
    },
    default={
        **DEFAULT,
        "learning_rate": 1e-3,
        "weight_decay": 0.0,
        "tokens": 20,
        "encoder": "lstm",
        "width": 128,
        "depth": 2,
    },
    sources={
        **SOURCES,
        "learning_rate": "around the 1e-3 that peft's own example of it uses",
        "tokens": "4 to 100 as in arXiv:2110.07602, which compares with this method",
        "encoder": "an LSTM in arXiv:2103.10385; peft adds three plain layers",
        "width": "around the 128 of peft's own example",
        "depth": "2 in arXiv:2103.10385",
    },
)
