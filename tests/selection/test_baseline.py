"""Methods held against trivial predictors: leads with their bounds, states, and what is chosen."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from orchestrator.selection.ask import ask
from orchestrator.selection.baseline import Baseline, leads
from orchestrator.selection.evidence import Evidence, gather
from orchestrator.selection.limits import Limits
from orchestrator.selection.recommend import recommend
from orchestrator.selection.selection import Selection

from .small_evidence import MACRO_F1, PERPLEXITY, measurements, result, sample, selection

MAJORITY = Baseline(name="always answering negative", score=0.276, interval=(0.27, 0.28))


def exact(means: list[float], variances: list[float]) -> Evidence:
    """Return evidence of independent means over so many rows that t is normal; the last one is the baseline."""
    seeds = np.zeros(len(means), np.int64)
    return Evidence(np.array(means), np.diag(variances), 0.0, seeds, 10**9, 0)


def test_lead_over_baseline_of_one_method_is_the_paired_interval() -> None:
    ((lead, low),) = leads(exact([0.5, 0.4], [0.0004, 0.0]), MACRO_F1, [0], 1)
    assert lead == pytest.approx(0.1)
    assert low == pytest.approx(0.1 - 1.96 * 0.02, abs=0.001)
    ((lead, _),) = leads(exact([3.0, 4.0], [0.01, 0.0]), PERPLEXITY, [0], 1)
    assert lead == pytest.approx(1.0), "lower is better"


def test_leads_over_baseline_have_dunnetts_bound_together() -> None:
    gains = leads(exact([0.5] * 10 + [0.4], [0.0002] * 11), MACRO_F1, range(10), 10)
    critical = (0.1 - gains[0][1]) / 0.02
    correlated = np.full((10, 10), 0.5) + np.eye(10) / 2  # each difference has the baseline's error in it
    reached = multivariate_normal(np.zeros(10), correlated, seed=1).cdf(np.full(10, critical))
    assert reached == pytest.approx(0.95, abs=0.01)


def test_lead_over_baseline_is_paired_by_rows() -> None:
    random = np.random.default_rng(1)
    hard = random.random(400) < 0.5
    method = hard | (random.random(400) < 0.1)
    evidence = gather([sample(method, random=False), sample(hard, random=False)], 400, seed=0)
    ((lead, low),) = leads(evidence, MACRO_F1, [0], 1)
    differences = method.astype(float) - hard
    assert lead == pytest.approx(differences.mean())
    assert (lead - low) / 1.96 == pytest.approx(differences.std() / 20, rel=0.1), "and not that of two samples"


def test_equal_answers_do_not_beat_the_baseline() -> None:
    ((_, low),) = leads(exact([0.4, 0.4], [0.0, 0.0]), MACRO_F1, [0], 1)
    assert not replace(result("lora", 0.4), baseline_lead=(0.0, low)).beats_baseline
    assert result("lora", 0.4).beats_baseline, "there is no baseline"


def test_no_better_than_baseline_is_the_state_and_the_answer() -> None:
    chosen = selection(result("lora", 0.281, tied=True, baseline_lead=(0.005, -0.01)), baselines=(MAJORITY,))
    assert chosen.state == "no_better_than_baseline"
    negative = "better than always answering negative (macro-F1 0.276 [0.270, 0.280])"
    assert chosen.no_better == f"no method was shown to be {negative}", "its score is higher, and that may be chance"
    lower = selection(result("lora", 0.276, tied=True, baseline_lead=(0.0, -0.01)), baselines=(MAJORITY,))
    assert lower.no_better == f"no method was {negative}"
    assert Selection.from_dict(chosen.to_dict()) == chosen
    better = selection(result("lora", 0.5, tied=True, baseline_lead=(0.2, 0.1)), baselines=(MAJORITY,))
    assert (better.state, better.no_better) == ("recommended", "")


@pytest.mark.parametrize(("seeds", "freedom", "seed_variance", "is_told"), [
    (2, 1, 0.0048, True), (2, 2, 0.0048, True), (3, 6, 0.0048, False), (2, 1, 1e-5, False), (1, 0, 0.0, False),
])  # fmt: skip
def test_resolution_asks_for_seeds_where_they_are_few_and_differ(
    seeds: int, freedom: int, seed_variance: float, is_told: bool
) -> None:
    covariance = np.diag([8.8e-5, 1e-4])
    gathered = Evidence(np.array([0.72, 0.69]), covariance, seed_variance, np.array([seeds, 1]), 2069, freedom)
    chosen = selection(result("lora", 0.72, tied=True), result("ia3", 0.69), evidence=gathered.to_dict())
    told = f"the difference between seeds, of which {seeds} retrainings tell little: more of them (selection.seeds)"
    assert (told in chosen.resolution) == is_told


def test_select_answers_with_baseline_and_state() -> None:
    winner = result("lora", 0.8, tied=True, baseline_lead=(0.5, 0.4), measurements=measurements(size=2e6))
    small = result(
        "ia3", 0.28, gap=0.4, baseline_lead=(0.0, -0.1), measurements=measurements(size=1e5), collapsed_seeds=3
    )
    chosen = selection(winner, small, baselines=(MAJORITY,))
    answer = ask(chosen, Limits(), None, backbone=1e9).to_dict()
    assert answer["baseline"] == {"name": "always answering negative", "score": 0.276, "interval": [0.27, 0.28]}
    assert (answer["method"], answer["state"], answer["collapsed_seeds"]) == ("lora", "recommended", 0)
    answer = ask(chosen, Limits(max_size=1e6), None, backbone=1e9).to_dict()
    assert (answer["method"], answer["state"], answer["collapsed_seeds"]) == ("ia3", "no_better_than_baseline", 3)


def test_preference_passes_over_tied_methods_no_better_than_baseline() -> None:
    large = result("lora", 0.31, tied=True, baseline_lead=(0.03, 0.001), measurements=measurements(size=2e6))
    small = result("ia3", 0.29, tied=True, baseline_lead=(0.01, -0.02), measurements=measurements(size=1e5))
    choice = recommend([large, small], "size", MACRO_F1)
    assert choice.method == "lora"
    assert choice.reason == "lora alone of the 2 tied methods is better than the baseline"
