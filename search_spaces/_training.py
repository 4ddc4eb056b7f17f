"""The hyperparameters of training, which every method that trains has."""

from __future__ import annotations

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

SOURCES = {
    "batch_size": "8, 16 and 32, the sizes that GLUE fine-tuning is reported with (arXiv:1810.04805)",
    "warmup": "none to a fifth of all steps; 0.06 as in RoBERTa (arXiv:1907.11692)",
    "weight_decay": "0, 0.01 and 0.1, the values that BERT, RoBERTa and LoRA are reported with",
}
DEFAULT = {"batch_size": 16, "warmup": 0.06}


def training(low: float, high: float) -> dict[str, BaseDistribution]:
    """Return distributions of the learning rate from ``low`` to ``high``, batch size, warm-up and weight decay."""
    return {
        "learning_rate": FloatDistribution(low, high, log=True),
        "batch_size": CategoricalDistribution([8, 16, 32]),
        "warmup": FloatDistribution(0.0, 0.2),
        "weight_decay": CategoricalDistribution([0.0, 0.01, 0.1]),
    }
