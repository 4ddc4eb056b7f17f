"""A finished sweep is asked again: limits, what breaks them, and the one to relax."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.common.units import parse_bytes
from orchestrator.selection.ask import Reply, ask
from orchestrator.selection.limits import Limits, option, parse_fraction

from .small_evidence import measurements, result, selection

BACKBONE = 1e9
LORA = result("lora", 0.82, tied=True, measurements=measurements(size=2.4e6, memory=3e8, latency=0.2, merges=True))
ADAPTER = result("adapter", 0.81, tied=True, measurements=measurements(size=0.3e6, memory=2e8, latency=0.3))
IA3 = result(
    "ia3", 0.70, gap=0.08, measurements=measurements(size=0.1e6, memory=2e8, latency=0.01) | {"forgetting": 0.01}
)
PROBE = result(
    "linear_probe",
    0.60,
    measurements=measurements(size=0.01e6, memory=1e8, latency=0.0, merges=True),
    reason="far behind",
)
SELECTION = selection(LORA, ADAPTER, IA3, others=(PROBE,))


def reply(prefer: Any = None, events: Any = (), **limits: Any) -> Reply:
    return ask(SELECTION, Limits(**limits), prefer, backbone=BACKBONE, events=events)


def method(**limits: Any) -> str | None:
    answer = reply(**limits).result
    return answer.method if answer else None


def test_select_without_limits_gives_the_sweep_s_own_answer() -> None:
    answer = reply()
    assert answer.tied == ("lora", "adapter")
    assert answer.result == LORA
    assert reply("size").result == ADAPTER


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"max_size": 1e6}, "adapter"),
        ({"max_size": 0.2e6}, "ia3"),
        ({"max_size": 0.05e6}, "linear_probe"),
        ({"max_memory": 1.25e9}, "adapter"),  # the backbone counts
        ({"max_latency_overhead": 0.05}, "lora"),  # merged it adds nothing
        ({"mergeable": True, "max_size": 1e6}, "linear_probe"),
        ({"max_forgetting": 0.02}, "ia3"),  # what was not measured is not within
    ],
)
def test_select_chooses_the_best_method_within_limits(limits: dict[str, Any], expected: str) -> None:
    assert method(**limits) == expected


def test_select_compares_the_methods_within_limits_again() -> None:
    """Without lora, the adapter leads ia3 by more than doubt; without both, ia3 is alone."""
    assert reply(max_size=1e6).tied == ("adapter",)
    close = selection(LORA, ADAPTER, result("ia3", 0.805, gap=0.001, measurements=IA3.measurements))
    answer = ask(close, Limits(max_size=1e6), "size", backbone=BACKBONE)
    assert answer.tied == ("ia3", "adapter"), "behind lora, and not behind the adapter"
    assert answer.result
    assert answer.result.method == "ia3"


def test_select_reason_of_a_sole_match_names_the_limits() -> None:
    assert reply(max_size=0.05e6).reason == "linear_probe is the only scored method within the limits"
    assert reply(max_latency_overhead=0.0).reason == "lora is the only finalist within the limits"


def test_select_without_a_match_names_the_limit_to_relax() -> None:
    answer = reply(max_size=0.09e6, max_latency_overhead=0.02, max_forgetting=0.02)
    assert answer.result is None
    assert answer.reason == (
        "no scored method satisfies size up to 90.0 kB, latency overhead up to 2.0%,"
        " forgetting up to 0.02 nats per token"
    )
    assert answer.alternative == "relax one limit: write --max-size 100kB, and ia3 satisfies the rest (100 kB)"
    assert method(max_size=0.1e6, max_latency_overhead=0.02, max_forgetting=0.02) == "ia3", "as it says"


def test_select_accepts_the_relaxed_limit_that_it_names() -> None:
    answer = reply(max_memory=1.05e9)
    assert "write --max-memory 1.1GB, and linear_probe satisfies the rest" in answer.alternative
    assert method(max_memory=parse_bytes("1.1GB")) == "linear_probe"


def test_select_names_the_closest_method_when_one_limit_is_insufficient() -> None:
    answer = reply(max_size=0.005e6, max_forgetting=0.001, mergeable=True)
    assert answer.alternative.startswith(
        "relaxing one limit is not enough: linear_probe comes closest and exceeds --max-size"
    )
    assert "--max-forgetting (not measured)" in answer.alternative


def test_select_advises_to_leave_out_mergeable() -> None:
    answer = reply(max_size=0.2e6, max_forgetting=0.05, mergeable=True)
    assert answer.alternative == "relax one limit: leave out --mergeable, and ia3 satisfies the rest (not mergeable)"


def test_select_alternative_is_the_limit_that_excludes_a_better_score() -> None:
    assert reply(max_size=1e6).alternative == "with --max-size 2.4MB: lora, 0.820"
    assert method(max_size=parse_bytes("2.4MB")) == "lora"
    assert reply(max_size=0.05e6, mergeable=True).alternative == "with --max-size 2.4MB: lora, 0.820"
    unmerged = ask(selection(ADAPTER, others=(PROBE,)), Limits(mergeable=True), None, backbone=BACKBONE)
    assert unmerged.alternative == "without --mergeable: adapter, 0.810"
    assert reply(max_size=5e6).alternative == "no single limit excludes a better score"


def test_select_mentions_an_unscored_trial_that_leads_on_validation() -> None:
    small = {
        "event": "rung",
        "trial": "mail/lora/4",
        "step": 80,
        "value": 0.815,
        "measurements": measurements(size=0.2e6),
    }
    early = {**small, "trial": "mail/lora/5", "step": 40, "value": 0.99}
    other_task = {**small, "trial": "talk/lora/4", "value": 0.99}
    torn = {**small, "trial": "mail/lora/6", "value": None}
    answer = reply(max_size=0.25e6, events=[small, early, other_task, torn])
    assert answer.result
    assert answer.result.method == "ia3"
    assert answer.unscored
    assert str(answer.unscored.key) == "mail/lora/4"
    assert reply(max_size=1e6, events=[{**small, "value": 0.75}]).unscored is None, "the adapter is ahead of it"
    assert reply(events=[small]).unscored is None, "without limits the sweep has chosen"


def test_select_reply_is_json_with_mean_and_checkpoint_score() -> None:
    answer = reply(max_size=1e6).to_dict()
    assert {"method", "trial", "mean_score", "checkpoint_score", "interval", "tied", "reason", "pareto"} <= set(answer)
    assert (answer["method"], answer["trial"]) == ("adapter", "mail/adapter/1")
    assert answer["interval"] == pytest.approx([0.79, 0.83])
    assert answer["broken"]["lora"] == {"max_size": 2.4e6}
    none = reply(max_size=1).to_dict()
    assert (none["method"], none["mean_score"]) == (None, None)


@pytest.mark.parametrize(
    ("text", "count"), [("10MB", 1e7), ("1.5 GB", 1.5e9), ("500kB", 5e5), ("4096", 4096), ("1MiB", 2**20), ("2gb", 2e9)]
)
def test_parse_bytes_reads_units(text: str, count: float) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["ten", "10 parsecs", "-3MB", "MB", ""])
def test_parse_bytes_refuses_other_text(text: str) -> None:
    with pytest.raises(ValueError, match="write it as in 10MB"):
        parse_bytes(text)


@pytest.mark.parametrize(("text", "share"), [("5%", 0.05), ("0.05", 0.05), ("-1 %", -0.01), ("0", 0)])
def test_parse_fraction_reads_percent_and_decimals(text: str, share: float) -> None:
    assert parse_fraction(text) == pytest.approx(share)
    with pytest.raises(ValueError, match="write it as in 5% or"):
        parse_fraction(f"about {text}")


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("max_size", 123_456.0, "--max-size 123.5kB"),
        ("max_size", 999_999.0, "--max-size 1000kB"),
        ("max_memory", 2.41e12, "--max-memory 2410GB"),
        ("max_latency_overhead", 0.05123, "--max-latency-overhead 5.123%"),
        ("max_forgetting", 0.0501, "--max-forgetting 0.051"),
        ("mergeable", 0.0, "--mergeable"),
    ],
)
def test_limit_option_is_rounded_so_that_the_value_satisfies_it(name: Any, value: float, text: str) -> None:
    assert option(name, value) == text
