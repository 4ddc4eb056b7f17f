"""The price of looking at the test rows again."""

from __future__ import annotations

import pytest

from orchestrator.final.retrain import Look
from orchestrator.selection.ask import ask
from orchestrator.selection.best_trials import BestTrials
from orchestrator.selection.limits import Limits
from orchestrator.selection.looks import level_of, level_text, look_text
from orchestrator.selection.screening import Screening

from ..small_plan import trial
from .small_evidence import measurements, result, selection


def test_looks_spend_less_than_ten_percent_together() -> None:
    assert [level_of(look) for look in (1, 2, 3)] == pytest.approx([0.95, 0.975, 0.9875])
    assert sum(1 - level_of(look) for look in range(1, 30)) <= 0.1
    assert [level_text(look) for look in (1, 2, 3)] == ["95 %", "97.5 %", "98.75 %"]
    assert look_text(1) == ""
    assert "at most 7.5 % of sweeps" in look_text(2)


@pytest.mark.parametrize(("look", "tied"), [(1, ("lora",)), (2, ("lora", "ia3"))])
def test_select_after_a_second_look_ties_at_its_level(look: int, tied: tuple[str, ...]) -> None:
    """Two means 2.1 standard errors of a difference apart: significant at 95 %, and not at 97.5 %."""
    lora = result("lora", 0.8, tied=True, measurements=measurements(size=2e6))
    ia3 = result("ia3", 0.8 - 0.021 * 2**0.5, gap=0.001, measurements=measurements(size=2e6))
    large = result("adapter", 0.9, tied=True, measurements=measurements(size=9e6))
    told = [0.9, lora.mean_score, ia3.mean_score]
    chosen = selection(large, lora, ia3, look=look, evidence=_known(told))
    assert ask(chosen, Limits(max_size=5e6), None, backbone=0).tied == tied


def _known(means: list[float]) -> dict[str, object]:
    """Return evidence of means with a standard error of 0.01 each, over rows alone."""
    covariance = [[0.0001 * (row == column) for column in range(3)] for row in range(3)]
    return {
        "means": means,
        "row_covariance": covariance,
        "seed_variance": 0.0,
        "seeds": [0] * 3,
        "freedom": 0,
        "rows": 2000,
    }


def test_finalists_of_earlier_looks_are_finalists_again() -> None:
    lora, ia3, prefix = (trial(f"mail/{method}/0", "complete", {40: 0.5}) for method in ("lora", "ia3", "prefix"))
    best = BestTrials({"lora": lora, "ia3": ia3, "prefix": prefix})
    screening = Screening((lora,), {"ia3": "far behind", "prefix": "cut by the cap"}, frozenset({"prefix"}))
    kept = Look(2, {"mail": {"lora", "ia3"}}).kept("mail", screening, best)
    assert kept == Screening((lora, ia3), {"prefix": "cut by the cap"}, frozenset({"prefix"}))
    assert Look().kept("mail", screening, best) == screening
