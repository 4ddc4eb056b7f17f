"""Whether the selection's statements hold: 95 % intervals, the tied set, and no winner where there is none.

Plays thousands of sweeps whose truth is known (see :mod:`benchmarks._simulated_sweeps`), of every shape from 2 methods
with 2 seeds on 300 rows to 6 with 5 on 2,000, macro-F1 and accuracy, and prints a JSON line per question::

    python -m benchmarks.evidence                # 1,000 sweeps per question
    python -m benchmarks.evidence --sweeps 200   # quicker, coarser

*Two standard errors apart* is said of the difference between two methods, over rows and seeds, as the sweep itself has
it: the standard deviation that such a difference has when the sweep is played again and again, measured for every
shape. On a ladder every method is two of them behind the one before. Where instead all others are level, two of them
behind the best, no rule that keeps the best with 95 % confidence among several can drop half of them: each one alone is
told apart from the best in 64 % of sweeps at most. That case is printed for what it is, without a mark to reach.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

from benchmarks._common import emit
from benchmarks._simulated_sweeps import Played, Shape, play, truth
from orchestrator.selection.best import ranks
from orchestrator.selection.evidence import gather

REPEATS = 300
METHODS, SEEDS, ROWS, SPREADS = (2, 3, 4, 6), (2, 3, 5), (300, 800, 2000), (0.0, 0.01, 0.03)
METRICS = ("accuracy", "macro_f1")


@dataclass(frozen=True)
class Seen:
    """What the selection made of one sweep.

    Args:
        held: for each method, whether the interval holds the truth.
        tied: the methods of the tied set.
        best: the truly best ones.
    """

    held: tuple[bool, ...]
    tied: frozenset[int]
    best: frozenset[int]


def shapes(random: np.random.Generator, least: int = 2) -> Iterator[Shape]:
    """Endless shapes, every combination as likely as any other."""
    while True:
        yield Shape(
            methods=int(random.choice([count for count in METHODS if count >= least])),
            seeds=int(random.choice(SEEDS)),
            rows=int(random.choice(ROWS)),
            metric=METRICS[random.integers(2)],
            seed_sd=float(random.choice(SPREADS)),
        )


def see(shape: Shape, played: Played, seed: int) -> Seen:
    """Let the selection judge a sweep."""
    evidence = gather(played.arms(), shape.rows, seed=seed, repeats=REPEATS)
    true = truth(shape)
    ends = [evidence.interval(method, bounds=(0.0, 1.0)) for method in range(shape.methods)]
    found = ranks(evidence, higher_is_better=True, seed=seed)
    return Seen(
        held=tuple(low <= value <= high for (low, high), value in zip(ends, true, strict=True)),
        tied=frozenset(method for method, one in enumerate(found) if one.tied),
        best=frozenset(np.flatnonzero(true >= true.max() - 1e-12).tolist()),
    )


def different(sweeps: int, seed: int = 1) -> list[tuple[Shape, Seen]]:
    """Sweeps of methods that are up to ten points of accuracy apart."""
    random = np.random.default_rng(seed)
    found = []
    for number, shape in zip(range(sweeps), shapes(random), strict=False):
        skills = tuple(0.85 - 0.1 * random.random(shape.methods) ** 2)
        own = Shape(shape.methods, shape.seeds, shape.rows, shape.metric, shape.seed_sd, skills)
        found.append((own, see(own, play(own, random), number)))
    return found


def alike(
    sweeps: int, seed: int = 2, *, shuffled: bool = False, methods: int | None = None
) -> list[tuple[Shape, Seen]]:
    """Sweeps of methods that are all the same; or made so by shuffling their names on every row."""
    random = np.random.default_rng(seed)
    found = []
    for number, shape in zip(range(sweeps), shapes(random), strict=False):
        own = shape if methods is None else Shape(methods, shape.seeds, shape.rows, shape.metric, shape.seed_sd)
        played = play(own.spaced(0.02, ladder=True) if shuffled else own, random)
        found.append((own, see(own, played.shuffled(random) if shuffled else played, number)))
    return found


def apart(sweeps: int, methods: int, seed: int = 3, *, ladder: bool, errors: float = 2.0) -> list[tuple[Shape, Seen]]:
    """Sweeps of methods that are so many standard errors of a difference apart."""
    random = np.random.default_rng(seed)
    found = []
    for number, shape in zip(range(sweeps), shapes(random), strict=False):
        plain = Shape(methods, shape.seeds, shape.rows, shape.metric, shape.seed_sd)
        own = plain.spaced(errors * unit(plain), ladder=ladder)
        found.append((own, see(own, play(own, random), number)))
    return found


@cache
def unit(shape: Shape, sweeps: int = 400) -> float:
    """The standard error of a difference, in points of accuracy that two methods must differ by for it."""
    random = np.random.default_rng(9)
    two = Shape(2, shape.seeds, shape.rows, shape.metric, shape.seed_sd)
    scores = [[np.mean(arm.scores) for arm in play(two, random).arms()] for _ in range(sweeps)]
    slope = float(np.diff(truth(two.spaced(0.01, ladder=True)))[0]) / -0.01
    return float(np.std(np.diff(scores), ddof=1)) / slope


def share(flags: list[bool]) -> float:
    """How many of them are true."""
    return float(np.mean(flags))


def coverage(found: list[tuple[Shape, Seen]]) -> float:
    """The share of intervals that hold the truth."""
    return share([flag for _, seen in found for flag in seen.held])


def holds_best(found: list[tuple[Shape, Seen]]) -> float:
    """The share of sweeps whose tied set holds the truly best method."""
    return share([bool(seen.best & seen.tied) for _, seen in found])


def false_winners(found: list[tuple[Shape, Seen]]) -> float:
    """The share of sweeps that name a single winner."""
    return share([len(seen.tied) == 1 for _, seen in found])


def tied_share(found: list[tuple[Shape, Seen]]) -> float:
    """How much of the methods the tied set holds on average."""
    return float(np.mean([len(seen.tied) / shape.methods for shape, seen in found]))


def main() -> None:
    """Ask all questions."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sweeps", type=int, default=1000, help="per question")
    sweeps = parser.parse_args().sweeps
    found = different(sweeps)
    value = coverage(found)
    emit(benchmark="evidence", question="coverage of the 95 % intervals", sweeps=sweeps, value=value,
         reached=0.93 <= value <= 0.97, by_seeds=_by(found, "seeds"), by_seed_sd=_by(found, "seed_sd"),
         by_methods=_by(found, "methods"), by_metric=_by(found, "metric"))  # fmt: skip
    value = holds_best(found)
    emit(benchmark="evidence", question="tied set holds the best", sweeps=sweeps, value=value, reached=value >= 0.95)
    for methods in (None, 2, 3):
        value = false_winners(alike(sweeps, methods=methods))
        name = f"identical arms name a winner ({methods or '2 to 6'} methods)"
        emit(benchmark="evidence", question=name, sweeps=sweeps, value=value, reached=value <= _allowed(sweeps))
    value = false_winners(alike(sweeps, seed=4, shuffled=True))
    emit(benchmark="evidence", question="shuffled names name a winner", sweeps=sweeps, value=value,
         reached=value <= _allowed(sweeps))  # fmt: skip
    for methods in (4, 6):
        for ladder in (True, False):
            laid = apart(sweeps, methods, ladder=ladder)
            how = "each behind the one before" if ladder else "all behind the best"
            mark = {"reached": tied_share(laid) < 0.5} if ladder else {}
            emit(benchmark="evidence", question=f"two standard errors apart, {how}", methods=methods, sweeps=sweeps,
                 tied_share=tied_share(laid), holds_best=holds_best(laid), **mark)  # fmt: skip


def _allowed(sweeps: int) -> float:
    """One in twenty, and what chance adds to that in so many sweeps: two standard errors."""
    return 0.05 + 2 * float(np.sqrt(0.05 * 0.95 / sweeps))


def _by(found: list[tuple[Shape, Seen]], field: str) -> dict[str, float]:
    kinds = sorted({getattr(shape, field) for shape, _ in found})
    return {str(kind): round(coverage([one for one in found if getattr(one[0], field) == kind]), 4) for kind in kinds}


if __name__ == "__main__":
    main()
