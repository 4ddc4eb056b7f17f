"""The calibration of ``benchmarks.selection --named``, and what it learns from."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from benchmarks import _named
from benchmarks._named import calibration, learn, name_left_out, print_named, search_tables
from orchestrator.simulation.synthetic import METHODS, Synthetic
from orchestrator.simulation.tuning_replays import Named

TABLES = [Synthetic(METHODS[:3], seed=seed).table(task, 4) for seed, task in enumerate(("mail", "news"))]


def test_calibration_counts_frequencies_in_ten_bins() -> None:
    named = Named(frozenset(), {"lora": 0.75, "ia3": 0.25}, frozenset({"lora"}))
    other = Named(frozenset(), {"lora": 0.71, "ia3": 1.0}, frozenset({"ia3"}))
    bins = calibration([named, other])
    assert [entry["count"] for entry in bins] == [0, 0, 1, 0, 0, 0, 0, 2, 0, 1]
    assert (bins[7]["predicted"], bins[7]["observed"]) == (pytest.approx(0.73), 0.5)
    assert (bins[0]["predicted"], bins[0]["observed"]) == (None, None)


def test_named_sets_are_judged_by_gains_of_other_tasks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_named, "COUNTS", (1, 2))
    monkeypatch.setattr(_named, "BUDGETS", (1, 2))
    with ThreadPoolExecutor(1) as pool:
        searches = search_tables(TABLES, 3, pool)
        of_news = {key: some for key, some in searches.items() if key[0] == "news"}
        assert learn(searches, without="mail").to_dict() == learn(of_news).to_dict() != learn(searches).to_dict()
        assert len(name_left_out(searches, "mail", 2)) == 3
        print_named(TABLES, 2, pool)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["task"], line["trials_per_method"]) for line in lines[:-1]] == [
        (task, trials) for task in ("mail", "news") for trials in (1, 2)
    ]
    assert {"named_set_rate", "set_size", "brier"} <= set(lines[0])
    assert sum(entry["count"] for entry in lines[-1]["calibration"]) == 3 * 2 * 2 * 2
