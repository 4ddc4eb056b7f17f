"""Claims of the literature against made-up sweeps: each verdict can come out each way."""

from __future__ import annotations

import pytest

from orchestrator.selection.claims import claims
from orchestrator.selection.selection import Entry

from .small_evidence import entry, evidence, measurements


def verdicts(*entries: Entry, higher: bool = True, metric: str = "accuracy", parameters: int = 10**6) -> dict[str, str]:
    found = claims(
        entries,
        evidence([one.score for one in entries], error=0.005),
        metric=metric,
        higher_is_better=higher,
        parameters=parameters,
    )
    assert all(one.evidence for one in found)
    return {one.claim: one.verdict for one in found}


@pytest.mark.parametrize(("full", "verdict"), [(0.9, "confirmed"), (0.77, "undecided"), (0.6, "contradicted")])
def test_full_is_the_ceiling(full: float, verdict: str) -> None:
    found = verdicts(entry("lora", 0.78), entry("full", full))
    assert found["full fine-tuning is the ceiling that no other method exceeds"] == verdict


@pytest.mark.parametrize(("lora", "verdict"), [(0.8, "confirmed"), (0.785, "undecided"), (0.7, "contradicted")])
def test_lora_is_as_good_as_full(lora: float, verdict: str) -> None:
    assert verdicts(entry("lora", lora), entry("full", 0.8))["LoRA is as good as full fine-tuning"] == verdict


def test_full_is_memory_hungry() -> None:
    words = "full fine-tuning needs the most memory"
    big, small = measurements(memory=9e8), measurements(memory=1e8)
    assert verdicts(entry("full", 0.8, measurements=big), entry("lora", 0.8, measurements=small))[words] == "confirmed"
    assert (
        verdicts(entry("full", 0.8, measurements=small), entry("lora", 0.8, measurements=big))[words] == "contradicted"
    )
    assert words not in verdicts(entry("full", 0.8), entry("lora", 0.8))


def test_prompt_tuning_is_the_smallest() -> None:
    words = "prompt tuning trains the fewest parameters"
    least, most = measurements(size=4e3), measurements(size=4e6)
    assert (
        verdicts(entry("prompt", 0.5, measurements=least), entry("lora", 0.8, measurements=most))[words] == "confirmed"
    )
    assert (
        verdicts(entry("prompt", 0.5, measurements=most), entry("lora", 0.8, measurements=least))[words]
        == "contradicted"
    )


@pytest.mark.parametrize(("spread", "verdict"), [(0.2, "confirmed"), (0.012, "undecided"), (0.0005, "contradicted")])
def test_prompt_tuning_is_unstable(spread: float, verdict: str) -> None:
    found = verdicts(
        entry("prompt", 0.5, measurements={"seed_spread": spread}),
        entry("lora", 0.8, measurements={"seed_spread": 0.01}),
    )
    assert found["prompt tuning is the least stable over seeds"] == verdict


@pytest.mark.parametrize(("count", "verdict"), [(5e3, "confirmed"), (5e5, "contradicted")])
def test_shares_of_the_parameters(count: float, verdict: str) -> None:
    found = verdicts(entry("lora", 0.8, measurements={"trainable_parameters": count}))
    assert found["LoRA trains 0.1 to 1 % of the parameters"] == verdict


def ia3(score: float, *, tied: bool, size: float) -> str:
    lora = entry("lora", 0.8, tied=True, measurements=measurements(size=1e6))
    words = "IA3 is the smallest of the strong ones"
    return verdicts(lora, entry("ia3", score, tied=tied, measurements=measurements(size=size)))[words]


def test_ia3_is_the_smallest_of_the_strong_ones() -> None:
    assert ia3(0.79, tied=True, size=1e5) == "confirmed"
    assert ia3(0.79, tied=True, size=1e7) == "contradicted"
    assert ia3(0.7, tied=False, size=1e5) == "contradicted"
    assert ia3(0.79, tied=False, size=1e5) == "undecided", "left out, but nobody showed that it is behind"


@pytest.mark.parametrize(("probe", "verdict"), [(0.6, "confirmed"), (0.8, "undecided"), (0.9, "contradicted")])
def test_it_pays_to_train_more_than_the_head(probe: float, verdict: str) -> None:
    found = verdicts(entry("lora", 0.8, tied=True), entry("linear_probe", probe))
    assert found["it pays to train more than the head"] == verdict


def test_a_loss_is_better_when_it_is_lower() -> None:
    found = verdicts(entry("lora", 4.0, tied=True), entry("linear_probe", 6.0), higher=False, metric="perplexity")
    assert found["it pays to train more than the head"] == "confirmed"
    assert "LoRA is as good as full fine-tuning" not in verdicts(entry("lora", 4.0), entry("full", 4.0), higher=False)


def test_nothing_is_said_of_methods_that_were_not_there() -> None:
    assert verdicts(entry("bitfit", 0.8, tied=True)) == {}
