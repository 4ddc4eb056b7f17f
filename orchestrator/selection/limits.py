"""Limits on size, memory, latency, forgetting and mergeability, and the methods that satisfy them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from orchestrator.common.units import size
from orchestrator.selection.recommend import cost

Limit = Literal["max_size", "max_memory", "max_latency_overhead", "max_forgetting", "mergeable"]
_FRACTION = re.compile(r"(-?\d+(?:\.\d+)?)\s*(%?)")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits that a method must satisfy; ``None`` is no limit.

    Args:
        max_size: size of the adapter on disk, bytes.
        max_memory: peak memory while training, the backbone included, bytes.
        max_latency_overhead: time that a forward pass takes longer than on the bare backbone, as a fraction; 0 for a
            method that merges into the weights.
        max_forgetting: loss increase on neutral text, nats per token.
        mergeable: whether the method must merge into the backbone's weights.
    """

    max_size: float | None = None
    max_memory: float | None = None
    max_latency_overhead: float | None = None
    max_forgetting: float | None = None
    mergeable: bool = False

    def values(self) -> dict[Limit, float]:
        """Return the limits that are set, by name; 1 for ``mergeable``."""
        limits: dict[Limit, float | None] = {
            "max_size": self.max_size,
            "max_memory": self.max_memory,
            "max_latency_overhead": self.max_latency_overhead,
            "max_forgetting": self.max_forgetting,
            "mergeable": 1.0 if self.mergeable else None,
        }
        return {name: value for name, value in limits.items() if value is not None}

    def exceeded(self, measurements: Mapping[str, float], backbone: float) -> dict[Limit, float]:
        """Return the limits that a method exceeds, with its own values; infinity where a value was not measured.

        Args:
            measurements: measurements of the method.
            backbone: size of the backbone in memory, bytes.
        """
        values = limited_values(measurements, backbone)
        return {name: values[name] for name, limit in self.values().items() if not _within(name, values[name], limit)}

    def text(self) -> str:
        """Return the limits as they stand in a sentence."""
        return ", ".join(_phrases(self)) or "no limits"


def limited_values(measurements: Mapping[str, float], backbone: float) -> dict[Limit, float]:
    """Return a method's values of everything that can be limited; infinity where a value was not measured."""
    return {
        "max_size": cost(measurements, "size"),
        "max_memory": backbone + cost(measurements, "memory"),
        "max_latency_overhead": cost(measurements, "latency"),
        "max_forgetting": measurements.get("forgetting", math.inf),
        "mergeable": measurements.get("mergeable", 0.0),
    }


def _within(name: Limit, value: float, limit: float) -> bool:
    return value >= limit if name == "mergeable" else value <= limit


def limit_text(name: Limit, value: float) -> str:
    """Return a measured value, or a limit, with its unit."""
    if name == "mergeable":
        return "mergeable" if value else "not mergeable"
    if not math.isfinite(value):
        return "not measured"
    if name in ("max_size", "max_memory"):
        return size(value)
    return f"{value:.1%}" if name == "max_latency_overhead" else f"{value:.3g} nats per token"


def option(name: Limit, value: float | None = None) -> str:
    """Return the command-line option of a limit; with a value, rounded so that the value satisfies it."""
    flag = f"--{name.replace('_', '-')}"
    if value is None or name == "mergeable":
        return flag
    if name in ("max_size", "max_memory"):
        return f"{flag} {_rounded_up(value)}"
    scaled, unit = (value * 100, "%") if name == "max_latency_overhead" else (value, "")
    return f"{flag} {math.ceil(scaled * 1000) / 1000:g}{unit}"


def _rounded_up(count: float) -> str:
    for unit in ("kB", "MB", "GB"):
        count /= 1000
        if count < 1000 or unit == "GB":
            return f"{math.ceil(count * 10) / 10:g}{unit}"
    raise AssertionError("unreachable")


def _phrases(limits: Limits) -> Iterator[str]:
    for name, value in limits.values().items():
        noun = name.removeprefix("max_").replace("_", " ")
        yield noun if name == "mergeable" else f"{noun} up to {limit_text(name, value)}"


def parse_fraction(text: str) -> float:
    """Return the fraction that ``5%`` or ``0.05`` stands for.

    Raises:
        ValueError: if the text is no fraction, or one of 1 or more without a percent sign, which is hardly meant.
    """
    match = _FRACTION.fullmatch(text.strip())
    if not match:
        raise ValueError(f"{text!r} is not a fraction; write it as in 5% or 0.05")
    value = float(match.group(1))
    if not match.group(2) and value >= 1:
        raise ValueError(f"{text!r} without % is {value:.0%}; write {value:g}% or {value:.0%}")
    return value / (100 if match.group(2) else 1)


def parse_nats(text: str) -> float:
    """Return a number of nats per token.

    Raises:
        ValueError: if the text is no number.
    """
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is not a number of nats per token; write it as in 0.05") from error
