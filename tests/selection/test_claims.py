"""Claims of the literature against made-up sweeps: each verdict can come out each way."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.common.metric import Metric
from orchestrator.selection.claims import MIN_TUNED_TRIALS, claims
from orchestrator.selection.results import MethodResult

from .small_evidence import MACRO_F1, PERPLEXITY, evidence, measurements, result


def verdicts(
    *results: MethodResult, metric: Metric = MACRO_F1, parameters: int = 10**6, trials: int = MIN_TUNED_TRIALS
) -> dict[str, str]:
    results = tuple(replace(result, trials=trials, measurements=with_head(result)) for result in results)
    scores = evidence([result.mean_score for result in results], error=0.005)
    tested = claims(results, scores, metric, parameters=parameters)
    assert all(claim.evidence for claim in tested)
    return {claim.claim: claim.verdict for claim in tested}


def with_head(result: MethodResult) -> dict[str, float]:
    """Return a result's measurements with a head of 500 parameters, which are among the trained ones."""
    found = dict(result.measurements)
    if "trainable_parameters" in found:
        found = {**found, "trainable_parameters": found["trainable_parameters"] + 500, "head_parameters": 500.0}
    return found


@pytest.mark.parametrize(("full", "verdict"), [(0.9, "confirmed"), (0.77, "undecided"), (0.6, "contradicted")])
def test_claim_that_no_method_exceeds_full(full: float, verdict: str) -> None:
    by_claim = verdicts(result("lora", 0.78), result("full", full))
    assert by_claim["no other method exceeds full fine-tuning"] == verdict


@pytest.mark.parametrize(("lora", "verdict"), [(0.8, "confirmed"), (0.785, "undecided"), (0.7, "contradicted")])
def test_claim_that_lora_is_as_good_as_full(lora: float, verdict: str) -> None:
    assert verdicts(result("lora", lora), result("full", 0.8))["LoRA is as good as full fine-tuning"] == verdict


def test_claim_that_full_needs_the_most_memory() -> None:
    words = "full fine-tuning needs the most memory"
    big, small = measurements(memory=9e8), measurements(memory=1e8)
    assert (
        verdicts(result("full", 0.8, measurements=big), result("lora", 0.8, measurements=small))[words] == "confirmed"
    )
    assert (
        verdicts(result("full", 0.8, measurements=small), result("lora", 0.8, measurements=big))[words]
        == "contradicted"
    )
    assert words not in verdicts(result("full", 0.8), result("lora", 0.8))


def test_claim_that_prompt_tuning_is_the_smallest() -> None:
    words = "prompt tuning trains the fewest parameters"
    least, most = measurements(size=4e3), measurements(size=4e6)
    assert (
        verdicts(result("prompt", 0.5, measurements=least), result("lora", 0.8, measurements=most))[words]
        == "confirmed"
    )
    assert (
        verdicts(result("prompt", 0.5, measurements=most), result("lora", 0.8, measurements=least))[words]
        == "contradicted"
    )


@pytest.mark.parametrize(("spread", "verdict"), [(0.2, "confirmed"), (0.012, "undecided"), (0.0005, "contradicted")])
def test_claim_that_prompt_tuning_is_the_least_stable(spread: float, verdict: str) -> None:
    by_claim = verdicts(
        result("prompt", 0.5, measurements={"seed_spread": spread}),
        result("lora", 0.8, measurements={"seed_spread": 0.01}),
    )
    assert by_claim["prompt tuning is the least stable over seeds"] == verdict


@pytest.mark.parametrize(("count", "verdict"), [(5e3, "confirmed"), (5e5, "contradicted")])
def test_claims_about_fractions_of_the_parameters(count: float, verdict: str) -> None:
    by_claim = verdicts(result("lora", 0.8, measurements={"trainable_parameters": count}))
    assert by_claim["LoRA trains 0.1 to 1 % of the parameters"] == verdict


def ia3(score: float, *, tied: bool, size: float) -> str:
    lora = result("lora", 0.8, tied=True, measurements=measurements(size=1e6))
    words = "IA3 trains fewer parameters than the best methods"
    return verdicts(lora, result("ia3", score, tied=tied, measurements=measurements(size=size)))[words]


def test_claim_that_ia3_is_small_is_answered_by_size() -> None:
    assert ia3(0.79, tied=True, size=1e5) == "confirmed"
    assert ia3(0.79, tied=True, size=1e7) == "contradicted"
    assert ia3(0.7, tied=False, size=1e5) == "confirmed", "its score does not matter"
    assert ia3(0.79, tied=True, size=1e6) == "undecided", "as many"


def test_claims_about_sizes_leave_the_head_out() -> None:
    small = result("lora", 0.8, measurements={"trainable_parameters": 60_000.0, "head_parameters": 55_000.0})
    (claim,) = claims([small], evidence([0.8]), MACRO_F1, parameters=10**6)
    assert (claim.claim, claim.verdict) == ("LoRA trains 0.1 to 1 % of the parameters", "confirmed")
    assert claim.evidence == "lora: 5.0k of 1.0M parameters, 0.50% without the head, 6.00% with it"


def test_claims_about_scores_of_untuned_methods_are_undecided() -> None:
    by_claim = verdicts(result("lora", 0.6), result("full", 0.9), trials=7)
    assert by_claim["no other method exceeds full fine-tuning"] == "undecided"
    assert by_claim["LoRA is as good as full fine-tuning"] == "undecided"
    few = [replace(result(name, score), trials=trials) for name, score, trials in (("full", 0.9, 8), ("lora", 0.6, 2))]
    first, *_ = claims(few, evidence([0.9, 0.6], error=0.005), MACRO_F1, parameters=10**6)
    assert first.evidence.endswith("; full trials: lora 2, fewer than 8 tune no method")


@pytest.mark.parametrize(("probe", "verdict"), [(0.6, "confirmed"), (0.8, "undecided"), (0.9, "contradicted")])
def test_claim_that_more_than_the_head_improves_the_score(probe: float, verdict: str) -> None:
    by_claim = verdicts(result("lora", 0.8, tied=True), result("linear_probe", probe))
    assert by_claim["training more than the head improves the score"] == verdict


def test_claims_about_a_loss_prefer_lower_values() -> None:
    by_claim = verdicts(result("lora", 4.0, tied=True), result("linear_probe", 6.0), metric=PERPLEXITY)
    assert by_claim["training more than the head improves the score"] == "confirmed"
    assert "LoRA is as good as full fine-tuning" not in verdicts(
        result("lora", 4.0), result("full", 4.0), metric=PERPLEXITY
    )


def test_claims_need_results_of_their_methods() -> None:
    assert verdicts(result("bitfit", 0.8, tied=True)) == {}
