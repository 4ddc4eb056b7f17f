"""Registration of a task's methods, and what their bundles record of the selection."""

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.common.trial_types import TrialKey, TrialRecord
from orchestrator.final.bundle_fields import bundle_selection, why_not_recommended
from orchestrator.final.register import Registrar
from orchestrator.final.results import TaskOutcome
from orchestrator.selection.results import MethodResult, SeedResult
from orchestrator.selection.selection import Selection
from orchestrator.tracking.registry import Registered

from ..selection.small_evidence import MACRO_F1


def result(method: str, score: float, **changes: Any) -> MethodResult:
    seeds = tuple(
        SeedResult(
            seed=seed,
            checkpoint_score=score + offset,
            interval=(0.0, 1.0),
            validation=score,
            metrics={},
            measurements={"adapter_bytes": 2.4e6},
            checkpoint=f"{seed}",
        )
        for seed, offset in enumerate((-0.01, 0.01))
    )
    record = TrialRecord(key=TrialKey(f"mail/{method}", 0), params={}, values={4: score})
    uncompared = MethodResult.of_seeds(record, seeds, MACRO_F1, **changes)
    return replace(uncompared, interval=(score - 0.02, score + 0.02))


LORA = replace(result("lora", 0.81), tied=True)
IA3 = replace(result("ia3", 0.80), tied=True)
PREFIX = replace(result("prefix", 0.60), gap=0.15)
PROMPT = result("prompt", 0.40, reason="0.300 lower than lora on validation")
SELECTION = Selection(
    task="mail", metric=MACRO_F1, prefer="size", rows=200, seeds=2, recommended="ia3", trial="mail/ia3/0",
    reason="ia3 has the smallest adapter", alternative="", tied=("ia3", "lora"), minimum_detectable_difference=0.02,
    finalists=(LORA, IA3, PREFIX), others=(PROMPT,),
)  # fmt: skip


@pytest.fixture
def outcome() -> TaskOutcome:
    plan: Any = None
    records = tuple(TrialRecord(key=scored.key, params={}) for scored in SELECTION.scored)
    return TaskOutcome(plan, SELECTION, records, untuned=result("ia3", 0.7))


class Recorder:
    """Stands in for the registry, and refuses some."""

    def __init__(self, *refused: str) -> None:
        self.refused, self.asked = refused, list[str]()

    def __call__(self, _: Registrar, method_result: MethodResult) -> Registered:
        method = method_result.method
        self.asked.append(method)
        if method in self.refused:
            raise OSError("sqlite://someone:secret@host has no room")
        return Registered("mail", len(self.asked), "challenger")


def registered(outcome: TaskOutcome, recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> dict[str, Registered]:
    monkeypatch.setattr(Registrar, "register", lambda self, method_result: recorder(self, method_result))
    nothing: Any = None
    return Registrar(
        plan=nothing, sweep="s", outcome=outcome, backbone=nothing, lane=nothing, storage=nothing, run_id="r"
    ).register_all()


def test_register_starts_with_the_recommended_then_the_tied(
    outcome: TaskOutcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = registered(outcome, recorder := Recorder(), monkeypatch)
    assert list(versions) == recorder.asked == ["ia3", "lora"]


def test_register_notes_a_refused_tied_method(outcome: TaskOutcome, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(registered(outcome, Recorder("lora"), monkeypatch)) == ["ia3"]
    (note,) = outcome.notes
    assert note.startswith("lora (tied) was not registered: ")
    assert "secret" not in note


def test_register_fails_for_a_refused_recommended_method(outcome: TaskOutcome, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match="no room"):
        registered(outcome, Recorder("ia3"), monkeypatch)


def test_bundle_selection_names_the_runner_up_and_why() -> None:
    recorded = bundle_selection(SELECTION)
    assert (recorded.recommended, recorded.tied, recorded.runner_up) == ("ia3", ("ia3", "lora"), "lora")
    assert recorded.runner_up_reason == "0.810 [0.790, 0.830], tied with ia3; prefer: size decided"
    lower = "0.600 [0.580, 0.620], at least 0.150 lower than the best (95 % level)"
    assert why_not_recommended(PREFIX, SELECTION) == lower
    eliminated = "eliminated by the validation screening: 0.300 lower than lora on validation"
    assert why_not_recommended(PROMPT, SELECTION).endswith(eliminated)
