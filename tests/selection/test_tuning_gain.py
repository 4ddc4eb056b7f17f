"""What tuning may still bring: its quantiles, its unit, and what follows from it for sets and probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import methods
from orchestrator.common.trial_types import TrialKey, TrialRecord
from orchestrator.selection.ask import ask
from orchestrator.selection.best_trials import best_trials
from orchestrator.selection.expected_set import expected_set
from orchestrator.selection.gain_draws import allowances, best_shares, draw_gains, with_probabilities
from orchestrator.selection.limits import Limits
from orchestrator.selection.screening import ERROR, Screening, screen
from orchestrator.selection.selection import Selection, probability_text
from orchestrator.selection.tied_set import errors_of_equals, ranks
from orchestrator.selection.tuning_gain import COUNTS, FEWEST_GAINS, Gain, TuningGain, learned_gain, room_of, unit_of

from .small_evidence import MACRO_F1, PERPLEXITY, evidence, measurements, result, selection


def gain_of(**units: float) -> TuningGain:
    """Return gains that are certain, by method and after any number of trials below 8; later ones are 0."""
    return TuningGain(
        {name: {1: np.full(21, value), 8: np.zeros(21)} for name, value in units.items()} | {"any": {1: np.zeros(21)}}
    )


def test_tuning_gain_is_learned_by_method_category_and_trials() -> None:
    units = np.linspace(0, 1, 21)
    gain = TuningGain.learn(
        [Gain("lora", trials, unit) for trials in (2, 3) for unit in units] + [Gain("ia3", 9, 0.5)] * FEWEST_GAINS
    )
    np.testing.assert_allclose(gain.of("lora", 3), np.quantile(np.repeat(units, 2), np.linspace(0, 1, 21)))
    assert gain.of("lora", 1).tolist() == gain.of("lora", 99).tolist(), "the nearest recorded number of trials"
    assert gain.of("ia3", 8).tolist() == [0.5] * 21
    assert methods.get("dora").category == methods.get("lora").category != methods.get("ia3").category
    assert gain.of("dora", 2).tolist() == gain.of("lora", 2).tolist(), "its category's"
    assert gain.of("plugin_of_mine", 8).tolist() == gain.quantiles["any"][8].tolist()


def test_tuning_gain_with_few_records_is_the_category_s() -> None:
    gains = [Gain("dora", 1, 0.9)] * (FEWEST_GAINS - 1) + [Gain("lora", 1, 0.1)] * FEWEST_GAINS
    gain = TuningGain.learn(gains)
    assert gain.of("dora", 1).tolist() == gain.quantiles["category reparameterization"][1].tolist()


def test_learned_tuning_gain_shrinks_with_trials_for_every_method() -> None:
    gain = learned_gain()
    assert {"lora", "adapter", "ia3", "prefix", "prompt", "linear_probe", "last_layers"} <= set(gain.quantiles)
    for name in gain.quantiles:
        means = [gain.of(name, trials).mean() for trials in (1, max(COUNTS))]
        assert means[0] > means[1] >= 0, name


def test_unit_of_a_sweep_is_best_down_to_the_tenth_percentile() -> None:
    scores = [0.2, 0.5, 0.6, 0.9, float("nan")]
    assert unit_of(scores, MACRO_F1) == pytest.approx(0.9 - (0.2 + 0.3 * 0.3))
    assert unit_of([3.0, 5.0], PERPLEXITY) == pytest.approx(4.8 - 3.0)
    assert unit_of([], MACRO_F1) == 0


def test_drawn_gains_have_the_quantiles_and_stay_within_the_metric() -> None:
    gain = TuningGain({"any": {1: np.linspace(0, 1, 21)}})
    drawn = gain.draw(["a", "b"], [1, 1], 0.5, room_of([0.2, 0.9], MACRO_F1))
    assert drawn[:, 0].mean() == pytest.approx(0.25, abs=0.01)
    assert drawn[:, 1].max() == pytest.approx(0.1)
    assert room_of([3.0], PERPLEXITY).tolist() == [2.0]
    assert np.asarray(np.corrcoef(drawn.T))[0, 1] == pytest.approx(0, abs=0.05)


def test_allowance_is_the_quantile_of_the_difference_of_gains() -> None:
    gains = np.column_stack([np.zeros(1000), np.linspace(0, 1, 1000)])
    allowed = allowances(gains)
    assert allowed[1, 0] == pytest.approx(0.95, abs=0.001)
    assert (allowed[0, 1], allowed[0, 0]) == (0, 0)
    assert allowances(gains, [0]).tolist() == allowed[:, :1].tolist()


def test_probability_to_be_best_is_the_share_of_draws() -> None:
    """Against the integral of two uniform gains: a lead of 0.2 wins with 1 - 0.8 ** 2 / 2."""
    gain = TuningGain({"any": {1: np.linspace(0, 1, 21)}})
    drawn = gain.draw(["a", "b"], [1, 1], 1.0, np.full(2, np.inf))
    shares = best_shares(np.array([0.2, 0.0]), np.zeros_like(drawn), drawn)
    assert shares == pytest.approx([1 - 0.8**2 / 2, 0.8**2 / 2], abs=0.01)
    equal = best_shares(np.array([0.5, 0.5, 0.1]), np.zeros((10, 3)), np.zeros((10, 3)))
    assert equal.tolist() == [0.5, 0.5, 0]


def test_probability_covers_noise_and_tuning_together() -> None:
    """A lead of one standard error of a difference wins with the normal probability of it."""
    from statistics import NormalDist

    noisy = evidence([0.8 + 0.01 * 2**0.5, 0.8], error=0.01, seeds=1, freedom=0)
    noisy = type(noisy)(noisy.means, noisy.row_covariance * 2, 0.0, noisy.seeds, noisy.rows, 0)
    errors = errors_of_equals(noisy, 0)
    shares = best_shares(noisy.means, errors, np.zeros_like(errors))
    assert shares[0] == pytest.approx(NormalDist().cdf(1), abs=0.01)
    tuned = best_shares(noisy.means, errors, np.full_like(errors, 0.1) * [0, 1])
    assert tuned[0] < 0.001


def test_ranks_keep_a_method_that_tuning_may_bring_ahead() -> None:
    scored = evidence([0.80, 0.70, 0.60], error=0.001)
    assert [rank.tied for rank in ranks(scored, MACRO_F1)] == [True, False, False]
    gains = np.zeros((3, 3))
    gains[1, 0], gains[2, 0] = 0.11, 0.11
    tuned = ranks(scored, MACRO_F1, tuning=gains)
    assert [rank.tied for rank in tuned] == [True, True, False]
    assert tuned[2].gap == pytest.approx(0.09, abs=0.01)


def test_expected_set_follows_the_recorded_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = {2: (0.4, 0.5, 0.6), 8: (0.2, 0.14, 0.4)}
    monkeypatch.setattr("orchestrator.selection.expected_set._named_shares", lambda: shares)
    said = "12 trials over 5 methods: expect a set of 2 to 3 that may be the best; for a single name about 40 trials"
    assert expected_set(12, 5) == said
    assert "expect a set of 1 to 2 that" in expected_set(40, 5)
    monkeypatch.setattr("orchestrator.selection.expected_set._named_shares", lambda: {2: (0.4, 0.5, 0.6)})
    assert expected_set(12, 5).endswith("; most recorded searches had no single name even with 2 trials per method")
    assert (expected_set(12, 1), expected_set(3, 5)) == ("", "")


def record(name: str, value: float) -> TrialRecord:
    return TrialRecord(
        key=TrialKey.parse(name), params={}, state="complete", values={40: value}, measurements={ERROR: 0.01}
    )


def screened(records: list[TrialRecord], gain: TuningGain) -> Screening:
    best = best_trials(records, {"mail": MACRO_F1})["mail"]
    return screen(best, records, MACRO_F1, rows=1000, max_finalists=4, gain=gain)


def test_screening_leaves_undecided_what_more_trials_may_bring_ahead() -> None:
    few = [record("mail/lora/0", 0.8), record("mail/ia3/0", 0.6), record("mail/prefix/0", 0.2)]
    screening = screened(few, gain_of(ia3=0.5, prefix=0.5))
    assert screening.unit == pytest.approx(0.8 - 0.28)
    assert [finalist.key.method for finalist in screening.finalists] == ["lora"]
    assert screening.undecided == {"ia3"}
    assert screening.reasons["ia3"] == (
        "undecided: 0.200 lower than lora on validation; noise (95 % level) and winner's bias explain 0.028 at most,"
        " and more trials may bring 0.260 (95 % quantile)"
    )
    assert "undecided" not in screening.reasons["prefix"]
    many = [*few, *(record(f"mail/ia3/{number}", 0.5) for number in range(1, 8))]
    assert screened(many, gain_of(ia3=0.5)).undecided == set(), "eight trials leave nothing to be gained"


def scored_selection(**changes: Any) -> Selection:
    lora = result("lora", 0.80, tied=True, trials=8, measurements=measurements(size=2e6))
    adapter = result("adapter", 0.72, gap=0.05, undecided=True, trials=2, measurements=measurements(size=1e6))
    ia3 = result("ia3", 0.60, reason="far behind", trials=2, measurements=measurements(size=1e5))
    results, scores = [lora, adapter, ia3], evidence([0.80, 0.72, 0.60])
    drawn = draw_gains(results, 0.3, MACRO_F1)
    first, second, third = with_probabilities(results, scores, MACRO_F1, drawn)
    return selection(first, second, others=(third,), tuning_unit=0.3, **changes)


def test_selection_names_tied_and_undecided_methods_with_probabilities() -> None:
    chosen = scored_selection()
    assert chosen.named == ("lora", "adapter")
    assert sum(chosen.probability.values()) == pytest.approx(1)
    assert next(iter(chosen.probability)) == "lora"
    assert Selection.from_dict(chosen.to_dict()).probability == chosen.probability
    assert probability_text({"lora": 0.84, "ia3": 0.156}) == (
        "lora 0.84 that a full search would not prefer another; ia3 0.16"
    )


def test_select_probability_within_limits_leaves_others_out() -> None:
    chosen = scored_selection()
    everything = ask(chosen, Limits(), None, backbone=0).to_dict()
    assert everything["probability"] == chosen.probability
    assert everything["named"] == ["lora", "adapter"]
    small = ask(chosen, Limits(max_size=1.5e6), None, backbone=0).to_dict()
    assert list(small["probability"]) == ["adapter", "ia3"]
    assert sum(small["probability"].values()) == pytest.approx(1)


def test_select_of_an_earlier_journal_has_no_probability() -> None:
    event = scored_selection().to_dict()
    del event["tuning_unit"]
    for scored in (*event["finalists"], *event["others"]):
        del scored["probability"], scored["undecided"]
    earlier = Selection.from_dict(event)
    reply = ask(earlier, Limits(max_size=1.5e6), None, backbone=0)
    assert (earlier.probability, earlier.named, earlier.probability_text) == ({}, ("lora",), "")
    assert reply.to_dict()["probability"] == {}
