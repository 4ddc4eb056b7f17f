"""Searches of recorded tables: what they leave to be gained, and what a sweep would say after them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from orchestrator.search.allocation import RoundRobin
from orchestrator.selection.tuning_gain import TuningGain
from orchestrator.simulation.table import Table
from orchestrator.simulation.tuning_replays import Searched, name_methods, search_table

Scores = Mapping[str, list[list[float]]]
SCORES = {
    "lora": [[0.1, 0.2, 0.3, 0.5], [0.1, 0.2, 0.3, 0.9], [0.1, 0.1, 0.1, 0.1]],
    "ia3": [[0.5, 0.5, 0.5, 0.6], [0.4, 0.4, 0.4, 0.4], [0.3, 0.3, 0.3, 0.3]],
}


@pytest.fixture
def table(make_table: Callable[[Scores], Table]) -> Table:
    return make_table(SCORES)


def test_table_search_counts_full_trials_and_is_repeatable(table: Table) -> None:
    whole = search_table(table, RoundRobin(), 3, 0, early_stopping=False)
    assert {method: sorted(scores) for method, scores in whole.full.items()} == {
        "ia3": [0.3, 0.4, 0.6],
        "lora": [0.1, 0.5, 0.9],
    }
    stopped = search_table(table, RoundRobin(), 3, 0)
    assert stopped == search_table(table, RoundRobin(), 3, 0)
    assert sum(map(len, stopped.full.values())) < 6


def test_gains_of_a_search_are_in_its_unit(table: Table) -> None:
    searched = Searched(table, {"lora": (0.5, 0.1), "ia3": (0.6,)})
    unit = 0.6 - float(np.quantile([0.5, 0.1, 0.6], 0.1))
    lora, ia3 = searched.gains()
    assert (lora.method, lora.trials) == ("lora", 2)
    assert lora.units == pytest.approx((0.9 - 0.5) / unit)
    assert (ia3.method, ia3.trials, ia3.units) == ("ia3", 1, 0)


def test_named_set_holds_the_best_once_tuning_is_allowed_for(table: Table) -> None:
    searched = Searched(table, {"lora": (0.5, 0.1), "ia3": (0.6,)})
    untuned = name_methods(searched, TuningGain.none())
    assert (untuned.methods, untuned.best) == (frozenset({"ia3"}), frozenset({"lora"}))
    assert not untuned.holds_best
    assert untuned.probability == {"ia3": 1, "lora": 0}
    assert untuned.brier == 1
    gain = TuningGain({"any": {1: np.zeros(21)}, "lora": {1: np.linspace(0, 1, 21)}})
    named = name_methods(searched, gain)
    assert named.methods == frozenset({"ia3", "lora"})
    assert named.holds_best
    assert named.probability["lora"] == pytest.approx(1 - 0.1 / searched.unit, abs=0.02)
