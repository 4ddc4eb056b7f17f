"""Synthetic learning curves for sweeps of any size: they saturate, start slowly, rest on a plateau, or diverge."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from optuna.distributions import CategoricalDistribution, FloatDistribution

from orchestrator.common.trial_types import TrialKey
from orchestrator.search.plans import StudyPlan
from orchestrator.simulation.curves import Curve
from orchestrator.simulation.table import Table
from search_spaces._base import SearchSpace

SPACE = SearchSpace(
    distributions={
        "learning_rate": FloatDistribution(1e-5, 1e-1, log=True),
        "rank": CategoricalDistribution([2, 4, 8, 16, 32]),
        "dropout": FloatDistribution(0.0, 0.3),
    },
    default={"learning_rate": 1e-3, "rank": 8, "dropout": 0.1},
    sources={},
)
UNTRAINED_SCORE, NOISE = 0.3, 0.01
"""The score without training, and the standard deviation of any score around its curve."""


@dataclass(frozen=True, kw_only=True)
class SyntheticMethod:
    """A synthetic method, whose best score is known.

    Args:
        name: The method's name.
        ceiling: Its score with the best parameters after endless training.
        shape: ``saturating`` rises at once and then ever slower; ``slow`` rises late; ``plateau`` rises after a step
            that differs between trials.
        pace: Optimizer steps until it has nearly reached its ceiling.
        rate: Its best learning rate; at more than ten times that a trial may diverge.
        step_seconds: Seconds of a step.
    """

    name: str
    ceiling: float
    shape: Literal["saturating", "slow", "plateau"] = "saturating"
    pace: float = 20.0
    rate: float = 1e-3
    step_seconds: float = 1.0


METHODS = (
    SyntheticMethod(name="lora", ceiling=0.90, step_seconds=1.2),
    SyntheticMethod(name="adapter", ceiling=0.88, pace=15.0),
    SyntheticMethod(name="ia3", ceiling=0.84, rate=1e-2),
    SyntheticMethod(name="prefix", ceiling=0.89, shape="slow", pace=40.0, rate=1e-2),
    SyntheticMethod(name="prompt", ceiling=0.80, shape="slow", pace=60.0, rate=3e-2),
    SyntheticMethod(name="full", ceiling=0.87, shape="plateau", pace=10.0, rate=1e-4, step_seconds=3.0),
    SyntheticMethod(name="last_layers", ceiling=0.82, shape="plateau", rate=3e-4, step_seconds=2.0),
    SyntheticMethod(name="linear_probe", ceiling=0.75, pace=5.0, rate=1e-2, step_seconds=0.5),
)


class Synthetic:
    """A curve for every configuration; equal seed, trial and parameters have equal curves.

    Args:
        methods: The methods.
        rungs: Optimizer steps with a score.
        seed: Seed of noise, plateaus and divergence.
    """

    def __init__(
        self, methods: Sequence[SyntheticMethod] = METHODS, rungs: Sequence[int] = (10, 20, 40, 80), seed: int = 0
    ):
        self._methods = {method.name: method for method in methods}
        self._rungs = tuple(rungs)
        self._seed = seed

    def plans(self, task: str) -> list[StudyPlan]:
        """Return a study for each method."""
        return [StudyPlan(study=f"{task}/{name}", space=SPACE, higher_is_better=True) for name in self._methods]

    def of(self, key: TrialKey, params: Mapping[str, Any]) -> Curve:
        """Return a trial's curve."""
        method, draw = self._methods[key.method], random.Random(f"{self._seed}:{key}")
        diverges = params["learning_rate"] > 10 * method.rate and draw.random() < 0.5
        end = draw.choice(self._rungs) if diverges else math.inf
        begin = draw.uniform(0, 0.4) * self._rungs[-1] if method.shape == "plateau" else 0.0
        gain = max(_ceiling(method, params) - UNTRAINED_SCORE, -UNTRAINED_SCORE)
        values = {
            step: UNTRAINED_SCORE + gain * _progress(method, step - begin) + draw.gauss(0, NOISE)
            for step in self._rungs
        }
        scores = {step: value if step < end else math.nan for step, value in values.items()}
        pace = method.step_seconds * draw.uniform(0.9, 1.1)
        seconds = {step: step * pace for step in self._rungs}
        return Curve(method=method.name, config_id=key.number, params=params, seconds=seconds, scores=scores)

    def table(self, task: str, configurations: int) -> Table:
        """Return a table with a number of configurations per method, the default first and the others drawn."""
        methods = {}
        for method in self._methods:
            keys = [TrialKey(f"{task}/{method}", number) for number in range(configurations)]
            methods[method] = tuple(self.of(key, self._draw_params(key)) for key in keys)
        return Table(task, self._rungs, methods)

    def _draw_params(self, key: TrialKey) -> dict[str, Any]:
        if key.number == 0:
            return dict(SPACE.default)
        draw = random.Random(f"{self._seed}:{key}:params")
        return {
            "learning_rate": 10 ** draw.uniform(-5, -1),
            "rank": draw.choice([2, 4, 8, 16, 32]),
            "dropout": draw.uniform(0.0, 0.3),
        }


def _ceiling(method: SyntheticMethod, params: Mapping[str, Any]) -> float:
    distance: float = math.log10(params["learning_rate"] / method.rate)
    size: float = math.log2(params["rank"] / 8)
    return method.ceiling - 0.08 * distance**2 - 0.05 * float(params["dropout"]) + 0.01 * size


def _progress(method: SyntheticMethod, steps: float) -> float:
    """Return a method's progress after a number of steps, in 0..1."""
    if steps <= 0:
        return 0.0
    if method.shape == "slow":
        return 1 / (1 + math.exp(-6 * (steps / method.pace - 0.75)))
    return 1 - math.exp(-3 * steps / method.pace)
