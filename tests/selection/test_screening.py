"""Who is retrained: those whom validation cannot part from the leader, luck included."""

from __future__ import annotations

import math
from typing import Any

import pytest

from orchestrator.common.trial_types import TrialKey, TrialRecord
from orchestrator.selection.best_trials import best_trials
from orchestrator.selection.screening import ERROR, screen, standard_error, winners_bias
from orchestrator.selection.tuning_gain import TuningGain

from .small_evidence import MACRO_F1, PERPLEXITY


def record(name: str, value: float, step: int = 40, error: float | None = 0.01) -> TrialRecord:
    measurements = {} if error is None else {ERROR: error}
    return TrialRecord(
        key=TrialKey.parse(name), params={}, state="complete", values={step: value}, measurements=measurements
    )


def split(*records: TrialRecord, higher: bool = True, rows: int = 1000, most: int = 4) -> Any:
    metric = MACRO_F1 if higher else PERPLEXITY
    best = best_trials(records, {"mail": metric})["mail"]
    return screen(best, records, metric, rows=rows, max_finalists=most, gain=TuningGain.none())


def names(screening: Any) -> list[str]:
    return [record.key.method for record in screening.finalists]


def test_screening_eliminates_only_beyond_noise() -> None:
    screening = split(record("mail/lora/0", 0.80), record("mail/ia3/0", 0.78), record("mail/prefix/0", 0.70))
    assert names(screening) == ["lora", "ia3"]
    assert screening.reasons == {
        "prefix": "0.100 lower than lora on validation; noise (95 % level) and winner's bias explain 0.028 at most"
    }


def test_screening_reason_tells_a_distance_and_its_noise_apart() -> None:
    screening = split(record("mail/lora/0", 0.80), record("mail/ia3/0", 0.7721))
    assert screening.reasons["ia3"].startswith("0.0279 lower than lora on validation; noise")
    assert screening.reasons["ia3"].endswith("explain 0.0277 at most")


def test_screening_allows_for_the_winners_bias_of_many_trials() -> None:
    one, rival = record("mail/lora/0", 0.80), record("mail/ia3/0", 0.765)
    assert names(split(one, rival)) == ["lora"]
    many = [record(f"mail/lora/{number}", 0.5) for number in range(1, 12)]
    assert names(split(one, *many, rival)) == ["lora", "ia3"]


def test_screening_eliminates_methods_without_a_full_trial() -> None:
    screening = split(record("mail/lora/0", 0.8), record("mail/ia3/0", 0.9, step=20))
    assert names(screening) == ["lora"]
    assert screening.reasons["ia3"] == "none of its trials reached step 40"


def test_screening_limits_the_finalists_and_keeps_the_leader() -> None:
    records = [record(f"mail/{name}/0", 0.8 - number / 1000) for number, name in enumerate("abcde")]
    screening = split(*records, most=2)
    assert names(screening) == ["a", "b"]
    assert set(screening.reasons) == {"c", "d", "e"}
    assert screening.cut == {"c", "d", "e"}
    assert screening.reasons["e"] == "cut by the cap of 2 finalists (selection.contenders), not out by evidence"
    assert names(split(*records, most=1)) == ["a"]


def test_screening_names_ties_at_the_cap_apart_from_evidence() -> None:
    equal = [record(f"mail/{name}/0", 0.262) for name in "abc"]
    screening = split(*equal, record("mail/d/0", 0.1), most=2)
    same = "cut by the cap of 2 finalists (selection.contenders), not out by evidence; a, b had exactly the same score"
    assert screening.reasons["c"] == f"{same} on validation"
    assert screening.cut == {"c"}, "d is out by evidence"
    assert "noise" in screening.reasons["d"]


def test_screening_of_a_loss_prefers_lower_values() -> None:
    assert names(split(record("mail/lora/0", 3.0), record("mail/ia3/0", 4.0), higher=False)) == ["lora"]
    assert names(split(record("mail/lora/0", 3.0), record("mail/ia3/0", 3.01), higher=False)) == ["lora", "ia3"]


def test_standard_error_unmeasured_is_binomial_or_infinite_for_a_loss() -> None:
    share = record("mail/lora/0", 0.8, error=None)
    assert standard_error(share, 100, MACRO_F1) == pytest.approx(0.04)
    assert standard_error(record("mail/lora/0", 1.0, error=None), 100, MACRO_F1) > 0
    assert standard_error(share, 100, PERPLEXITY) == math.inf
    loss = [record("mail/lora/0", 3.0, error=None), record("mail/ia3/0", 9.0, error=None)]
    assert names(split(*loss, higher=False)) == ["lora", "ia3"]


@pytest.mark.parametrize(("trials", "errors"), [(0, 0), (1, 0), (2, 0.56), (10, 1.54), (30, 2.04)])
def test_winners_bias_is_the_expected_maximum_of_normals(trials: int, errors: float) -> None:
    assert winners_bias(trials) == pytest.approx(errors, abs=0.03)
