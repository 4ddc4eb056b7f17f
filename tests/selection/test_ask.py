"""A finished sweep is asked again: limits, what breaks them, and the one to relax."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.common.units import parse_bytes
from orchestrator.selection.ask import Reply, ask
from orchestrator.selection.limits import Limits, option, parse_share

from .small_evidence import entry, measurements, selection

BACKBONE = 1e9
LORA = entry("lora", 0.82, tied=True, measurements=measurements(size=2.4e6, memory=3e8, latency=0.2, merges=True))
ADAPTER = entry("adapter", 0.81, tied=True, measurements=measurements(size=0.3e6, memory=2e8, latency=0.3))
IA3 = entry(
    "ia3", 0.70, gap=0.08, measurements=measurements(size=0.1e6, memory=2e8, latency=0.01) | {"forgetting": 0.01}
)
PROBE = entry(
    "linear_probe",
    0.60,
    measurements=measurements(size=0.01e6, memory=1e8, latency=0.0, merges=True),
    reason="far behind",
)
SELECTION = selection(LORA, ADAPTER, IA3, others=(PROBE,))


def reply(prefer: Any = None, events: Any = (), **limits: Any) -> Reply:
    return ask(SELECTION, Limits(**limits), prefer, backbone=BACKBONE, events=events)


def method(**limits: Any) -> str | None:
    found = reply(**limits).entry
    return found.method if found else None


def test_without_limits_the_sweep_says_what_it_said() -> None:
    found = reply()
    assert found.tied == ("lora", "adapter")
    assert found.entry == LORA
    assert reply("size").entry == ADAPTER


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
def test_limits(limits: dict[str, Any], expected: str) -> None:
    assert method(**limits) == expected


def test_who_is_left_is_compared_anew() -> None:
    """Without lora, the adapter leads ia3 by more than doubt; without both, ia3 is alone."""
    assert reply(max_size=1e6).tied == ("adapter",)
    close = selection(LORA, ADAPTER, entry("ia3", 0.805, gap=0.001, measurements=IA3.measurements))
    found = ask(close, Limits(max_size=1e6), "size", backbone=BACKBONE)
    assert found.tied == ("ia3", "adapter"), "behind lora, and not behind the adapter"
    assert found.entry
    assert found.entry.method == "ia3"


def test_when_nothing_satisfies_the_nearest_single_limit_is_named_with_its_value() -> None:
    found = reply(max_size=0.09e6, max_latency_overhead=0.02, max_forgetting=0.02)
    assert found.entry is None
    assert found.reason == (
        "Nothing that was scored satisfies size up to 90.0 kB, latency overhead up to 2.0%,"
        " forgetting up to 0.02 nats per token."
    )
    assert found.alternative == "Relax one limit: write --max-size 100kB, and ia3 satisfies (100 kB)."
    assert method(max_size=0.1e6, max_latency_overhead=0.02, max_forgetting=0.02) == "ia3", "as it says"


def test_relaxing_to_the_value_that_is_written_is_enough() -> None:
    found = reply(max_memory=1.05e9)
    assert "write --max-memory 1.1GB, and linear_probe satisfies" in found.alternative
    assert method(max_memory=parse_bytes("1.1GB")) == "linear_probe"


def test_when_no_single_limit_is_enough_it_says_what_comes_closest() -> None:
    found = reply(max_size=0.005e6, max_forgetting=0.001, mergeable=True)
    assert found.alternative.startswith("No single limit is enough: linear_probe comes closest and breaks --max-size")
    assert "--max-forgetting (not measured)" in found.alternative


def test_merging_is_left_out_where_it_alone_is_in_the_way() -> None:
    found = reply(max_size=0.2e6, max_forgetting=0.05, mergeable=True)
    assert found.alternative == "Relax one limit: leave out --mergeable, and ia3 satisfies (not mergeable)."


def test_what_would_change_an_answer_is_the_limit_before_a_better_score() -> None:
    assert reply(max_size=1e6).alternative == "With --max-size 2.4MB it could be lora, 0.820."
    assert method(max_size=parse_bytes("2.4MB")) == "lora"
    assert reply(max_size=0.05e6, mergeable=True).alternative == "With --max-size 2.4MB it could be lora, 0.820."
    unmerged = ask(selection(ADAPTER, others=(PROBE,)), Limits(mergeable=True), None, backbone=BACKBONE)
    assert unmerged.alternative == "Without --mergeable it could be adapter, 0.810."
    assert reply(max_size=5e6).alternative == "No single limit stands before a better score."


def test_a_trial_that_was_never_scored_is_mentioned_if_validation_puts_it_first() -> None:
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
    found = reply(max_size=0.25e6, events=[small, early, other_task, torn])
    assert found.entry
    assert found.entry.method == "ia3"
    assert found.unscored
    assert found.unscored.trial == "mail/lora/4"
    assert reply(max_size=1e6, events=[{**small, "value": 0.75}]).unscored is None, "the adapter is ahead of it"
    assert reply(events=[small]).unscored is None, "without limits the sweep has chosen"


def test_a_reply_is_json_with_the_promised_keys() -> None:
    found = reply(max_size=1e6).to_dict()
    assert {"method", "trial", "score", "interval", "tied", "reason", "pareto"} <= set(found)
    assert (found["method"], found["trial"]) == ("adapter", "mail/adapter/1")
    assert found["interval"] == pytest.approx([0.79, 0.83])
    assert found["broken"]["lora"] == {"max_size": 2.4e6}
    none = reply(max_size=1).to_dict()
    assert (none["method"], none["score"]) == (None, None)


@pytest.mark.parametrize(
    ("text", "count"), [("10MB", 1e7), ("1.5 GB", 1.5e9), ("500kB", 5e5), ("4096", 4096), ("1MiB", 2**20), ("2gb", 2e9)]
)
def test_sizes(text: str, count: float) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["ten", "10 parsecs", "-3MB", "MB", ""])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="write it as in 10MB"):
        parse_bytes(text)


@pytest.mark.parametrize(("text", "share"), [("5%", 0.05), ("0.05", 0.05), ("-1 %", -0.01), ("0", 0)])
def test_shares(text: str, share: float) -> None:
    assert parse_share(text) == pytest.approx(share)
    with pytest.raises(ValueError, match="write it as in 5% or"):
        parse_share(f"about {text}")


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
def test_an_option_is_written_so_that_the_value_is_within(name: Any, value: float, text: str) -> None:
    assert option(name, value) == text
