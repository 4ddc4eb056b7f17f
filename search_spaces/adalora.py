"""AdaLoRA: low-rank updates whose ranks are reallocated during training."""

from __future__ import annotations

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from search_spaces._base import SearchSpace
from search_spaces._low_rank import TARGETS
from search_spaces._training import DEFAULT, SOURCES, training

SPACE = SearchSpace(
    distributions={
        **training(1e-4, 1e-2),
        "init_rank": IntDistribution(3, 96, log=True),
        "target_ratio": FloatDistribution(0.3, 0.8),
        "alpha_ratio": FloatDistribution(0.5, 4.0, log=True),
        "targets": TARGETS,
        "dropout": CategoricalDistribution([0.0, 0.05, 0.1]),
        "tinit": FloatDistribution(0.0, 0.3),
        "tfinal": FloatDistribution(0.2, 0.6),
        "interval": CategoricalDistribution([0.0025, 0.01, 0.05]),
        "orthogonality": CategoricalDistribution([0.1, 0.3, 0.5]),
    },
    default={
        **DEFAULT,
        "learning_rate": 1e-3,
        "weight_decay": 0.0,
        "init_rank": 12,
        "target_ratio": 0.67,
        "alpha_ratio": 2.0,
        "targets": "all_linear",
        "dropout": 0.0,
        "tinit": 0.1,
        "tfinal": 0.5,
        "interval": 0.01,
        "orthogonality": 0.1,
    },
    sources={
        **SOURCES,
        "learning_rate": "5e-4 to 2.2e-3 over the tasks of arXiv:2303.10512, five times around it",
        "init_rank": "3 to 12 in arXiv:2303.10512, for 2 to 8 in the end; higher ones as for LoRA",
        "target_ratio": "two thirds throughout arXiv:2303.10512, half of it to a little more",
        "alpha_ratio": "1 and 2 are usual",
        "targets": "every linear layer in arXiv:2303.10512; LoRA's choices",
        "dropout": "none as in peft, 0.05 to 0.1 as for LoRA",
        "tinit": "about a tenth of all steps in arXiv:2303.10512",
        "tfinal": "about half of all steps in arXiv:2303.10512",
        "interval": "1 to 100 steps of some ten thousand in arXiv:2303.10512; wider for short trials",
        "orthogonality": "0.1, 0.3 and 0.5 in arXiv:2303.10512",
    },
)
