"""Who is retrained: those whom validation cannot part from the leader, luck included."""

from __future__ import annotations

import math
from typing import Any

import pytest

from orchestrator.common.trial_types import TrialKey, TrialRecord
from orchestrator.selection.choose import finalists
from orchestrator.selection.screening import ERROR, screen, standard_error, winners_bias


def record(name: str, value: float, step: int = 40, error: float | None = 0.01) -> TrialRecord:
    measurements = {} if error is None else {ERROR: error}
    return TrialRecord(
        key=TrialKey.parse(name), params={}, state="complete", values={step: value}, measurements=measurements
    )


def split(*records: TrialRecord, higher: bool = True, rows: int = 1000, most: int = 4) -> Any:
    found = finalists(records, higher_is_better={"mail": higher})["mail"]
    return screen(found, records, higher_is_better=higher, rows=rows, most=most)


def names(found: Any) -> list[str]:
    return [one.key.method for one in found.contenders]


def test_a_method_is_out_only_beyond_noise() -> None:
    found = split(record("mail/lora/0", 0.80), record("mail/ia3/0", 0.78), record("mail/prefix/0", 0.70))
    assert names(found) == ["lora", "ia3"]
    assert found.reasons == {"prefix": "0.100 behind lora on validation, where up to 0.028 could be luck"}


def test_the_best_of_many_owes_more_to_luck() -> None:
    one, rival = record("mail/lora/0", 0.80), record("mail/ia3/0", 0.765)
    assert names(split(one, rival)) == ["lora"]
    many = [record(f"mail/lora/{number}", 0.5) for number in range(1, 12)]
    assert names(split(one, *many, rival)) == ["lora", "ia3"]


def test_a_method_that_never_came_to_full_length_is_out() -> None:
    found = split(record("mail/lora/0", 0.8), record("mail/ia3/0", 0.9, step=20))
    assert names(found) == ["lora"]
    assert found.reasons["ia3"] == "none of its trials came to step 40"


def test_no_more_than_so_many_are_retrained_and_the_leader_always() -> None:
    records = [record(f"mail/{name}/0", 0.8 - number / 1000) for number, name in enumerate("abcde")]
    found = split(*records, most=2)
    assert names(found) == ["a", "b"]
    assert set(found.reasons) == {"c", "d", "e"}
    assert found.reasons["e"] == "2 methods are ahead of it on validation, and no more are retrained"
    assert names(split(*records, most=1)) == ["a"]


def test_a_loss_is_compared_the_other_way_round() -> None:
    assert names(split(record("mail/lora/0", 3.0), record("mail/ia3/0", 4.0), higher=False)) == ["lora"]
    assert names(split(record("mail/lora/0", 3.0), record("mail/ia3/0", 3.01), higher=False)) == ["lora", "ia3"]


def test_where_nobody_measured_a_share_of_rows_is_binomial_and_a_loss_unknown() -> None:
    share = record("mail/lora/0", 0.8, error=None)
    assert standard_error(share, 100, higher_is_better=True) == pytest.approx(0.04)
    assert standard_error(record("mail/lora/0", 1.0, error=None), 100, higher_is_better=True) > 0
    assert standard_error(share, 100, higher_is_better=False) == math.inf
    loss = [record("mail/lora/0", 3.0, error=None), record("mail/ia3/0", 9.0, error=None)]
    assert names(split(*loss, higher=False)) == ["lora", "ia3"]


@pytest.mark.parametrize(("trials", "errors"), [(0, 0), (1, 0), (2, 0.56), (10, 1.54), (30, 2.04)])
def test_luck_is_the_expected_maximum_of_so_many_normals(trials: int, errors: float) -> None:
    assert winners_bias(trials) == pytest.approx(errors, abs=0.03)
