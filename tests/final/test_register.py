"""What of a sweep's outcome is registered, in which order, and what is said of it."""

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.common.trial_types import TrialKey, TrialRecord
from orchestrator.final.bundle_fields import compared, comparison, lost
from orchestrator.final.register import Registrar
from orchestrator.final.results import Finalist, Scored, TaskOutcome
from orchestrator.selection.selection import Entry, Selection
from orchestrator.tracking.registry import Registered


def entry(method: str, score: float, **changes: Any) -> Entry:
    return Entry(
        method=method, trial=f"mail/{method}/0", score=score, interval=(score - 0.02, score + 0.02),
        scores=(score - 0.01, score + 0.01), validation=score, measurements={"adapter_bytes": 2.4e6}, **changes,
    )  # fmt: skip


ENTRIES = (
    entry("lora", 0.81, tied=True),
    entry("ia3", 0.80, tied=True),
    entry("prefix", 0.60, gap=0.15),
)
OTHER = entry("prompt", 0.40, reason="0.3 behind on validation")
SELECTION = Selection(
    task="mail", metric="macro_f1", higher_is_better=True, prefer="size", rows=200, seeds=2, recommended="ia3",
    trial="mail/ia3/0", reason="ia3 is the smallest.", alternative="", tied=("ia3", "lora"), minimum_detectable_difference=0.02,
    finalists=ENTRIES, others=(OTHER,),
)  # fmt: skip


def finalist(one: Entry) -> Finalist:
    record = TrialRecord(key=TrialKey(f"mail/{one.method}", 0), params={}, values={4: one.validation})
    scored = tuple(
        Scored(
            seed=seed,
            score=score,
            interval=(0.0, 1.0),
            validation=score,
            metrics={},
            measurements={},
            checkpoint=f"{seed}",
        )
        for seed, score in enumerate(one.scores)
    )
    role: Any = "champion" if one.method == SELECTION.recommended else "best"
    return Finalist(
        record,
        role,
        one.score,
        one.interval,
        {},
        dict(one.measurements),
        "1",
        own_score=0.82,
        scored=scored,
        tied=one.tied,
    )


@pytest.fixture
def outcome() -> TaskOutcome:
    order = sorted(SELECTION.scored, key=lambda e: (e.method != "ia3", -e.score))
    found = [finalist(one) for one in order]
    untuned = replace(found[0], role="default", tied=False)
    plan: Any = None
    return TaskOutcome(plan, [*found, untuned], tuple(one.record for one in found), SELECTION)


class Recorder:
    """Stands in for the registry, and refuses some."""

    def __init__(self, *refused: str) -> None:
        self.refused, self.asked = refused, list[str]()

    def __call__(self, _: Registrar, one: Finalist) -> Registered:
        method = one.record.key.method
        self.asked.append(method)
        if method in self.refused:
            raise OSError("sqlite://someone:secret@host has no room")
        return Registered("mail", len(self.asked), "challenger")


def registered(outcome: TaskOutcome, recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> dict[str, Registered]:
    monkeypatch.setattr(Registrar, "register", lambda self, one: recorder(self, one))
    nothing: Any = None
    return Registrar(
        plan=nothing, sweep="s", outcome=outcome, backbone=nothing, lane=nothing, storage=nothing, run_id="r"
    ).register_all()


def test_the_recommended_comes_first_then_who_is_tied(outcome: TaskOutcome, monkeypatch: pytest.MonkeyPatch) -> None:
    found = registered(outcome, recorder := Recorder(), monkeypatch)
    assert list(found) == recorder.asked == ["ia3", "lora"]


def test_a_tied_one_that_is_refused_is_noted(outcome: TaskOutcome, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(registered(outcome, Recorder("lora"), monkeypatch)) == ["ia3"]
    (note,) = outcome.notes
    assert note.startswith("lora, tied with it, was not registered: ")
    assert "secret" not in note


def test_a_recommended_one_that_is_refused_is_an_error(outcome: TaskOutcome, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match="no room"):
        registered(outcome, Recorder("ia3"), monkeypatch)


def test_the_runner_up_is_the_best_of_the_others_and_why_it_lost(outcome: TaskOutcome) -> None:
    told = comparison(SELECTION, outcome.champion)
    assert (told.score, told.scores) == (0.8, (0.79, 0.81))
    assert (told.recommended, told.tied, told.runner_up) == ("ia3", ("ia3", "lora"), "lora")
    assert told.runner_up_lost == ("with 0.810 [0.790, 0.830] it cannot be told apart from ia3; prefer: size decided.")
    assert lost(ENTRIES[2], SELECTION) == "with 0.600 [0.580, 0.620] it is at least 0.150 behind the best."
    assert lost(OTHER, SELECTION).endswith("it was not in contention: 0.3 behind on validation.")


def test_the_card_lists_everyone_with_a_verdict(outcome: TaskOutcome) -> None:
    found = compared(outcome)
    assert [(one.method, one.verdict) for one in found] == [
        ("ia3", "recommended"),
        ("lora", "tied"),
        ("prefix", "at least 0.150 behind"),
        ("prompt", "not in contention"),
        ("ia3 (untuned)", ""),
    ]
    assert found[0].costs == ("2.4 MB", "not measured", "not measured")
    assert (found[0].seeds, found[0].trials) == (2, 1)
