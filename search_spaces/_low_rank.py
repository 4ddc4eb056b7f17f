"""The hyperparameters that LoRA and its relatives share."""

from __future__ import annotations

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from search_spaces import _training

TARGETS = CategoricalDistribution(["attention_qv", "attention", "feed_forward", "all_linear"])
DISTRIBUTIONS: dict[str, BaseDistribution] = {
    **_training.training(5e-5, 5e-3),
    "rank": IntDistribution(2, 256, log=True),
    "alpha_ratio": FloatDistribution(0.5, 4.0, log=True),
    "dropout": CategoricalDistribution([0.0, 0.05, 0.1]),
    "rslora": CategoricalDistribution([False, True]),
    "lr_ratio": CategoricalDistribution([1.0, 4.0, 16.0]),
}
DEFAULT = {
    **_training.DEFAULT,
    "learning_rate": 5e-4,
    "weight_decay": 0.0,
    "rank": 8,
    "alpha_ratio": 2.0,
    "dropout": 0.0,
    "rslora": False,
    "lr_ratio": 1.0,
}
SOURCES = {
    **_training.SOURCES,
    "learning_rate": "2e-4 to 5e-4 in arXiv:2106.09685 and arXiv:2305.14314, ten times around it",
    "rank": "1 to 64 in arXiv:2106.09685; higher ones pay off with rank stabilization (arXiv:2312.03732)",
    "alpha_ratio": "1 and 2 are usual",
    "dropout": "none as in peft, 0.05 to 0.1 in arXiv:2305.14314",
    "rslora": "arXiv:2312.03732",
    "lr_ratio": "1 as in LoRA, up to the 16 of LoRA+ (arXiv:2402.12354)",
}
