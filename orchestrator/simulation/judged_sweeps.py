"""How often the selection's statements are correct, on simulated sweeps whose true scores are known.

Two methods are *a standard error apart* if their true scores differ by the standard error of a difference over rows and
seeds. It is the standard deviation of that difference over many simulated sweeps, computed for every shape of sweep.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from orchestrator.common.metric import Metric
from orchestrator.selection.evidence import gather
from orchestrator.selection.tied_set import ranks
from orchestrator.simulation.scored_sweeps import MetricName, ScoredSweep, Shape, simulate, true_scores

REPEATS = 300
METHODS, SEEDS, ROWS, SPREADS = (2, 3, 4, 6), (2, 3, 5), (300, 800, 2000), (0.0, 0.01, 0.03)
METRICS: tuple[MetricName, ...] = ("accuracy", "macro_f1")


@dataclass(frozen=True)
class Judgement:
    """The selection's statements about one sweep, with the truth.

    Args:
        shape: shape of the sweep.
        covered: for each method, whether its interval contains its true score.
        tied: positions of the methods in the tied set.
        best: positions of the truly best methods.
    """

    shape: Shape
    covered: tuple[bool, ...]
    tied: frozenset[int]
    best: frozenset[int]


def draw_shapes(random: np.random.Generator) -> Iterator[Shape]:
    """Yield shapes without end, with every combination equally likely."""
    while True:
        yield Shape(
            methods=int(random.choice(METHODS)),
            seeds=int(random.choice(SEEDS)),
            rows=int(random.choice(ROWS)),
            metric=METRICS[random.integers(2)],
            seed_sd=float(random.choice(SPREADS)),
        )


def judge(shape: Shape, sweep: ScoredSweep, seed: int) -> Judgement:
    """Return what the selection states about a sweep."""
    evidence = gather(sweep.samples(), shape.rows, seed=seed, repeats=REPEATS)
    scores = true_scores(shape)
    intervals = [evidence.interval(method, bounds=(0.0, 1.0)) for method in range(shape.methods)]
    method_ranks = ranks(evidence, Metric(name=shape.metric), seed=seed)
    return Judgement(
        shape=shape,
        covered=tuple(low <= score <= high for (low, high), score in zip(intervals, scores, strict=True)),
        tied=frozenset(method for method, rank in enumerate(method_ranks) if rank.tied),
        best=frozenset(np.flatnonzero(scores >= scores.max() - 1e-12).tolist()),
    )


def judge_different_methods(sweeps: int, seed: int = 1) -> list[Judgement]:
    """Judge sweeps of methods whose true accuracies differ by up to 0.1."""
    random = np.random.default_rng(seed)
    judgements = []
    for number, shape in zip(range(sweeps), draw_shapes(random), strict=False):
        skills = tuple(0.85 - 0.1 * random.random(shape.methods) ** 2)
        shape = replace(shape, skills=skills)
        judgements.append(judge(shape, simulate(shape, random), number))
    return judgements


def judge_equal_methods(
    sweeps: int, seed: int = 2, *, shuffled: bool = False, methods: int | None = None
) -> list[Judgement]:
    """Judge sweeps of methods that are equally good.

    Args:
        sweeps: number of sweeps.
        seed: seed of everything random.
        shuffled: make different methods equal by shuffling their names on every row.
        methods: number of methods; random for each sweep if left out.
    """
    random = np.random.default_rng(seed)
    judgements = []
    for number, random_shape in zip(range(sweeps), draw_shapes(random), strict=False):
        shape = random_shape if methods is None else replace(random_shape, methods=methods)
        sweep = simulate(shape.spaced(0.02, ladder=True) if shuffled else shape, random)
        judgements.append(judge(shape, sweep.shuffled(random) if shuffled else sweep, number))
    return judgements


def judge_spaced_methods(
    sweeps: int, methods: int, seed: int = 3, *, ladder: bool, errors: float = 2.0
) -> list[Judgement]:
    """Judge sweeps of methods that are a given number of standard errors apart.

    Args:
        sweeps: number of sweeps.
        methods: number of methods in each.
        seed: seed of everything random.
        ladder: whether each method is below the one before it, instead of all others below the best.
        errors: distance in standard errors of a difference.
    """
    random = np.random.default_rng(seed)
    judgements = []
    for number, random_shape in zip(range(sweeps), draw_shapes(random), strict=False):
        equal = replace(random_shape, methods=methods)
        shape = equal.spaced(errors * standard_error(equal), ladder=ladder)
        judgements.append(judge(shape, simulate(shape, random), number))
    return judgements


@cache
def standard_error(shape: Shape, sweeps: int = 400) -> float:
    """Return the standard error of a difference, as the difference in true accuracy that causes it."""
    random = np.random.default_rng(9)
    pair = replace(shape, methods=2)
    scores = [[np.mean(sample.scores) for sample in simulate(pair, random).samples()] for _ in range(sweeps)]
    slope = float(np.diff(true_scores(pair.spaced(0.01, ladder=True)))[0]) / -0.01
    return float(np.std(np.diff(scores), ddof=1)) / slope


def coverage(judgements: Sequence[Judgement]) -> float:
    """Return the share of intervals that contain the true score."""
    return _share([covered for judgement in judgements for covered in judgement.covered])


def best_in_tied_set(judgements: Sequence[Judgement]) -> float:
    """Return the share of sweeps whose tied set contains a truly best method."""
    return _share([bool(judgement.best & judgement.tied) for judgement in judgements])


def single_winners(judgements: Sequence[Judgement]) -> float:
    """Return the share of sweeps in which the selection names a single winner."""
    return _share([len(judgement.tied) == 1 for judgement in judgements])


def tied_share(judgements: Sequence[Judgement]) -> float:
    """Return the mean share of the methods that the tied set contains."""
    return float(np.mean([len(judgement.tied) / judgement.shape.methods for judgement in judgements]))


def _share(flags: Sequence[bool]) -> float:
    return float(np.mean(flags))
