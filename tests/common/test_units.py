"""Durations, bytes and counts as text."""

from typing import Any

import pytest

from orchestrator.common.units import duration, number, size


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (9.4, "0:09"), (59.6, "1:00"), (125, "2:05"), (3599.7, "1:00:00"), (3722, "1:02:02")],
)
def test_duration_shows_minutes_and_hours(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1_940_000, "1.9 MB"),
        (240_000_000, "240 MB"),
        (3.2e9, "3.2 GB"),
        (5e12, "5.0 TB"),
    ],
)
def test_size_shows_bytes_with_decimal_units(count: float, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (999, "999"), (1000, "1.0k"), (73_728, "73.7k"), (481_000, "481k"), (22.7e6, "22.7M"), (7e9, "7.0B")],
)
def test_number_shows_counts_with_decimal_suffixes(count: float, text: str) -> None:
    assert number(count) == text


@pytest.mark.parametrize(("show", "text"), [(size, "1.0 MB"), (number, "1.0M")])
def test_size_and_number_round_up_to_the_next_unit(show: Any, text: str) -> None:
    assert show(999_950) == text
