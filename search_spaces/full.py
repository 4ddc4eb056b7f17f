"""Full fine-tuning: low learning rates, and lower ones for lower blocks."""

from __future__ import annotations

from optuna.distributions import CategoricalDistribution, FloatDistribution

from search_spaces._base import SearchSpace
from search_spaces._training import DEFAULT, SOURCES, training

SPACE = SearchSpace(
    distributions={
        **training(1e-6, 1e-4),
        "layer_decay": FloatDistribution(0.7, 1.0),
        "pooling": CategoricalDistribution(["head", "mean"]),
    },
    default={
        **DEFAULT,
        "learning_rate": 2e-5,
        "weight_decay": 0.01,
        "layer_decay": 1.0,
        "pooling": "head",
    },
    sources={
        **SOURCES,
        "learning_rate": "around the 2e-5 to 5e-5 of BERT fine-tuning (arXiv:1810.04805)",
        "layer_decay": "0.7 to 1, around the 0.75 to 0.9 of ELECTRA and ULMFiT (arXiv:2003.10555, arXiv:1801.06146)",
        "pooling": "the model's own, and the mean, which sentence encoders are trained with (arXiv:1908.10084)",
    },
)
