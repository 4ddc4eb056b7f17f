"""What rows and seeds leave open, against textbook numbers and sweeps whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from orchestrator.selection.evidence import Evidence, gather

from .small_evidence import evidence, sample

ROWS = 400
DRAW = np.random.default_rng(0)
FIRST, SECOND, THIRD = (DRAW.random(ROWS) < share for share in (0.8, 0.75, 0.85))


def test_evidence_of_one_seed_has_the_binomial_standard_error() -> None:
    found = gather([sample(FIRST)], ROWS, seed=1, repeats=4000)
    share = FIRST.mean()
    assert math.sqrt(found.covariance[0, 0]) == pytest.approx(math.sqrt(share * (1 - share) / ROWS), rel=0.05)
    assert (found.freedom, found.seeds.tolist()) == (0, [1])


def test_evidence_of_methods_that_agree_has_a_smaller_contrast() -> None:
    almost = FIRST.copy()
    almost[:4] = ~almost[:4]
    found = gather([sample(FIRST), sample(almost), sample(SECOND)], ROWS, seed=1, repeats=2000)
    assert found.contrast(0, 1)[0] == pytest.approx(math.sqrt(4) / ROWS, rel=0.1)
    assert found.contrast(0, 2)[0] > 3 * found.contrast(0, 1)[0]


def test_evidence_pools_the_seed_variance_over_methods() -> None:
    samples = [sample(FIRST, SECOND, THIRD), sample(FIRST, FIRST, FIRST)]
    found = gather(samples, ROWS, seed=1)
    scores = [one.mean() for one in (FIRST, SECOND, THIRD)]
    assert found.seed_variance == pytest.approx(np.var(scores, ddof=1) / 2)
    assert found.freedom == 4
    assert found.seed_parts == pytest.approx([found.seed_variance / 3] * 2)


def test_evidence_of_a_method_without_training_has_no_seed_variance() -> None:
    found = gather([sample(FIRST, SECOND), sample(THIRD, random=False)], ROWS, seed=1)
    assert found.seeds.tolist() == [2, 0]
    assert found.seed_parts[1] == 0
    assert found.freedom == 1


def test_evidence_counts_the_interaction_of_seeds_and_rows_once() -> None:
    """Two seeds of one skill: each one's share of right rows differs by luck alone, which both parts would hold."""
    random = np.random.default_rng(5)
    totals, truths = [], []
    for repeat in range(150):
        hard = random.random(ROWS)
        answers = [np.where(random.random(ROWS) < 0.5, hard, random.random(ROWS)) < 0.8 for _ in range(2)]
        found = gather([sample(*answers)], ROWS, seed=repeat, repeats=200)
        totals.append(found.covariance[0, 0])
        truths.append(np.mean([one.mean() for one in answers]))
    assert np.mean(totals) == pytest.approx(np.var(truths, ddof=1), rel=0.25)


def test_evidence_interval_is_students_t_with_satterthwaites_freedom() -> None:
    found = Evidence(np.array([0.8]), np.array([[4e-4]]), 3e-4, np.array([3]), 500, 6)
    freedom = (5e-4) ** 2 / ((4e-4) ** 2 / 499 + (1e-4) ** 2 / 6)
    half = stats.t.ppf(0.975, freedom) * math.sqrt(5e-4)
    assert found.interval(0, bounds=(0, 1)) == pytest.approx((0.8 - half, 0.8 + half))
    assert found.interval(0, bounds=(0, 0.81))[1] == 0.81


def test_evidence_survives_json() -> None:
    found = gather([sample(FIRST, SECOND), sample(THIRD, random=False)], ROWS, seed=1)
    back = Evidence.from_dict(found.to_dict())
    assert back.covariance == pytest.approx(found.covariance)
    assert back.of([1]).means == pytest.approx([THIRD.mean()])
    assert (back.rows, back.freedom) == (ROWS, 1)


def test_evidence_of_constant_answers_has_no_variance() -> None:
    found = gather([sample(FIRST, FIRST), sample(FIRST, FIRST)], ROWS, seed=1)
    assert found.contrast(0, 1)[0] == pytest.approx(0, abs=1e-9)


def test_gather_refuses_no_methods_and_no_rows() -> None:
    with pytest.raises(ValueError, match="no methods"):
        gather([], 10, seed=0)
    with pytest.raises(ValueError, match="resample 0 rows"):
        gather([sample(FIRST)], 0, seed=0)


def test_gather_takes_fewer_resamples_on_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    monkeypatch.setattr("orchestrator.selection.evidence.bootstrap_jointly", lambda s, r, *, seed, repeats:
                        seen.append(repeats) or np.random.default_rng(0).random((9, 1)))  # fmt: skip
    for rows in (400, 50_000, 10_000_000):
        gather([sample(FIRST)], rows, seed=0)
    assert seen == [1000, 400, 200]


def test_small_evidence_has_the_given_standard_error() -> None:
    assert math.sqrt(evidence([0.8, 0.7]).covariance[0, 0]) == pytest.approx(0.01)
