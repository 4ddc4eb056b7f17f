"""Error rates of the selection's statements: its 95 % intervals, its tied set, and single winners among equal methods.

    python -m benchmarks.selection_calibration                # 1,000 sweeps per question
    python -m benchmarks.selection_calibration --sweeps 200   # faster, with larger sampling error

Simulates sweeps whose true scores are known (see ``orchestrator.simulation.scored_sweeps``), of every shape from 2
methods with 2 seeds on 300 test rows to 6 methods with 5 seeds on 2,000 rows, with macro-F1 and accuracy. A line per
``question`` has ``value`` and ``target_met``:

- coverage: fraction of the methods' intervals that contain their true score; target 0.93 to 0.97.
- tied set: fraction of sweeps whose tied set contains a truly best method; target at least 0.95.
- single winner: fraction of sweeps of equally good methods in which the selection names a single winner; target at most
  0.05, plus two standard errors of that fraction among so many sweeps.
- two standard errors apart: ``tied_share``, the mean fraction of the methods in the tied set, and
  ``contains_best_share``, the fraction of sweeps whose tied set contains the best method. The standard error is that of
  a difference, see ``orchestrator.simulation.judged_sweeps``. Where each method is two standard errors behind the
  one before, the target for ``tied_share`` is below 0.5. Where all others are two standard errors behind the best,
  there is no target: no rule that keeps the best with 95 % confidence can drop half of the methods, since a single one
  differs significantly from the best in at most 64 % of sweeps.
"""

from __future__ import annotations

import numpy as np

from benchmarks._command_line import argument_parser, emit
from orchestrator.simulation.judged_sweeps import (
    Judgement,
    best_in_tied_set,
    coverage,
    judge_different_methods,
    judge_equal_methods,
    judge_spaced_methods,
    single_winners,
    tied_share,
)


def main() -> None:
    """Simulate the sweeps of every question, and print its line."""
    parser = argument_parser(__doc__)
    parser.add_argument("--sweeps", type=int, default=1000, help="simulated sweeps per question (default: %(default)s)")
    sweeps = parser.parse_args().sweeps
    judgements = judge_different_methods(sweeps)
    value = coverage(judgements)
    emit(benchmark="selection_calibration", question="coverage of the 95 % intervals", sweeps=sweeps, value=value,
         target_met=0.93 <= value <= 0.97, by_seeds=_coverage_by(judgements, "seeds"),
         by_seed_sd=_coverage_by(judgements, "seed_sd"), by_methods=_coverage_by(judgements, "methods"),
         by_metric=_coverage_by(judgements, "metric"))  # fmt: skip
    value = best_in_tied_set(judgements)
    emit(
        benchmark="selection_calibration",
        question="tied set contains a best method",
        sweeps=sweeps,
        value=value,
        target_met=value >= 0.95,
    )
    for methods in (None, 2, 3):
        value = single_winners(judge_equal_methods(sweeps, methods=methods))
        question = f"single winner among equally good methods ({methods or '2 to 6'} methods)"
        emit(
            benchmark="selection_calibration",
            question=question,
            sweeps=sweeps,
            value=value,
            target_met=value <= _max_winner_share(sweeps),
        )
    value = single_winners(judge_equal_methods(sweeps, seed=4, shuffled=True))
    emit(benchmark="selection_calibration", question="single winner after shuffling the methods' names on every row",
         sweeps=sweeps, value=value, target_met=value <= _max_winner_share(sweeps))  # fmt: skip
    for methods in (4, 6):
        for ladder in (True, False):
            judgements = judge_spaced_methods(sweeps, methods, ladder=ladder)
            spacing = "each behind the one before" if ladder else "all others behind the best"
            target = {"target_met": tied_share(judgements) < 0.5} if ladder else {}
            emit(benchmark="selection_calibration", question=f"two standard errors apart, {spacing}", methods=methods,
                 sweeps=sweeps, tied_share=tied_share(judgements),
                 contains_best_share=best_in_tied_set(judgements), **target)  # fmt: skip


def _max_winner_share(sweeps: int) -> float:
    """Return 0.05 plus two standard errors of that fraction among so many sweeps."""
    return 0.05 + 2 * float(np.sqrt(0.05 * 0.95 / sweeps))


def _coverage_by(judgements: list[Judgement], field: str) -> dict[str, float]:
    """Return the coverage for each value of a field of the sweeps' shapes."""
    values = sorted({getattr(judgement.shape, field) for judgement in judgements})
    return {
        str(value): round(coverage([j for j in judgements if getattr(j.shape, field) == value]), 4) for value in values
    }


if __name__ == "__main__":
    main()
