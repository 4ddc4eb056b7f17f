"""The selection of a journal of release 0.1, asked again: its numbers under today's names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.cli.output.select import ask_sweep, replies_json
from orchestrator.journal.events import Journal
from orchestrator.selection.limits import Limits
from orchestrator.selection.selection import selections

SWEEP = Path(__file__).parents[1] / "data" / "sweeps_of_0_1" / "storage" / "finished-20261126-164710"


def test_selection_of_0_1_has_mean_and_checkpoint_scores() -> None:
    selection = selections(Journal.read(SWEEP / "journal.jsonl"))["mail"]
    lora = selection.result("lora")
    assert (lora.mean_score, lora.checkpoint_score) == (0.47435897435897434, 0.48717948717948717)
    assert lora.seed_scores == (0.48717948717948717, 0.46153846153846156)
    assert lora.measurements["seed_spread"] == pytest.approx(0.0181, abs=1e-4)
    assert (lora.tied, lora.gap) == (True, None)
    assert selection.winner.method == "linear_probe"
    assert selection.minimum_detectable_difference == pytest.approx(0.0998, abs=1e-4)
    assert (selection.metric.name, selection.metric.higher_is_better) == ("accuracy", True)


def test_select_over_a_journal_of_0_1_gives_its_numbers() -> None:
    answer = replies_json(ask_sweep(str(SWEEP), "", Limits(), None, "sweeps"))
    recorded = next(
        event for line in (SWEEP / "journal.jsonl").read_text().splitlines()
        if (event := json.loads(line))["event"] == "selection"
    )  # fmt: skip
    first = recorded["finalists"][0]
    assert (answer["method"], answer["mean_score"]) == (recorded["recommended"], first["score"])
    assert answer["checkpoint_score"] == 0.48717948717948717
    assert (answer["interval"], answer["tied"]) == (first["interval"], recorded["tied"])
    smaller = replies_json(ask_sweep(str(SWEEP), "mail", Limits(max_size=1e4), None, "sweeps"))
    assert (smaller["method"], smaller["broken"]["lora"]) == ("linear_probe", {"max_size": 43758.0})
