"""What a user can ask for beside a good score, and which methods are within it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from orchestrator.common.units import size
from orchestrator.selection.recommend import cost

Limit = Literal["max_size", "max_memory", "max_latency_overhead", "max_forgetting", "mergeable"]
_SHARE = re.compile(r"(-?\d+(?:\.\d+)?)\s*(%?)")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What an answer must keep; ``None`` is no limit.

    Args:
        max_size: of the adapter on disk, bytes.
        max_memory: while training, the backbone included, bytes.
        max_latency_overhead: of a forward pass against the bare backbone, as a fraction; nothing for what merges.
        max_forgetting: of neutral text, nats per token.
        mergeable: whether it must fold into the backbone's weights.
    """

    max_size: float | None = None
    max_memory: float | None = None
    max_latency_overhead: float | None = None
    max_forgetting: float | None = None
    mergeable: bool = False

    def given(self) -> dict[Limit, float]:
        """The limits that there are; 1 for ``mergeable``."""
        values: dict[Limit, float | None] = {
            "max_size": self.max_size,
            "max_memory": self.max_memory,
            "max_latency_overhead": self.max_latency_overhead,
            "max_forgetting": self.max_forgetting,
            "mergeable": 1.0 if self.mergeable else None,
        }
        return {name: value for name, value in values.items() if value is not None}

    def broken(self, measurements: Mapping[str, float], backbone: float) -> dict[Limit, float]:
        """The limits that a method breaks, and what it has instead; endless where nobody measured it.

        Args:
            measurements: of the method.
            backbone: its bytes.
        """
        has = measured(measurements, backbone)
        return {name: has[name] for name, limit in self.given().items() if not _within(name, has[name], limit)}

    def words(self) -> str:
        """As they were asked for."""
        return ", ".join(_asked(self)) or "no limits"


def measured(measurements: Mapping[str, float], backbone: float) -> dict[Limit, float]:
    """What a method has of everything that can be limited."""
    return {
        "max_size": cost(measurements, "size"),
        "max_memory": backbone + cost(measurements, "memory"),
        "max_latency_overhead": cost(measurements, "latency"),
        "max_forgetting": measurements.get("forgetting", math.inf),
        "mergeable": measurements.get("mergeable", 0.0),
    }


def _within(name: Limit, value: float, limit: float) -> bool:
    return value >= limit if name == "mergeable" else value <= limit


def told(name: Limit, value: float) -> str:
    """A measured value, or a limit, as it would be written on the command line."""
    if name == "mergeable":
        return "mergeable" if value else "not mergeable"
    if not math.isfinite(value):
        return "not measured"
    if name in ("max_size", "max_memory"):
        return size(value)
    return f"{value:.1%}" if name == "max_latency_overhead" else f"{value:.3g} nats per token"


def option(name: Limit, value: float | None = None) -> str:
    """How a limit is asked for; with a value, loosely enough that the value is within it."""
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


def _asked(limits: Limits) -> Iterator[str]:
    for name, value in limits.given().items():
        plain = name.removeprefix("max_").replace("_", " ")
        yield plain if name == "mergeable" else f"{plain} up to {told(name, value)}"


def parse_share(text: str) -> float:
    """A fraction of ``5%`` or ``0.05``.

    Raises:
        ValueError: if it is none.
    """
    match = _SHARE.fullmatch(text.strip())
    if not match:
        raise ValueError(f"{text!r} is no share; write it as in 5% or 0.05")
    return float(match.group(1)) / (100 if match.group(2) else 1)
