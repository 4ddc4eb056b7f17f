"""What a stage reports while it runs, so that what it has measured survives its end."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import IO, Any

GAIN = 0.03
"""Smallest share of the time that a setting has to save to be recommended."""


class Report:
    """Writes the measurements of one stage as JSON lines.

    Args:
        stream: stream that the supervisor reads.
        limit_s: seconds that the stage has.
    """

    def __init__(self, stream: IO[str], limit_s: float) -> None:
        self._stream, self._end = stream, time.monotonic() + limit_s

    def figure(self, name: str, value: float | str | bool | None) -> None:
        """Report a measurement; its unit stands in its name."""
        self.write("figure", name, value if isinstance(value, str | bool | int) or value is None else float(value))

    def check(self, claim: str, ok: bool, detail: object = "") -> None:
        """Report that a claim holds, or fail the stage."""
        if not ok:
            self.write("problem", claim, str(detail))

    def skip(self, what: str, reason: str) -> None:
        """Report that something was left out."""
        self.write("skip", what, reason)

    def recommend(self, setting: str, value: str, ratios: Mapping[str, Any]) -> None:
        """Report which value of a setting to take, with the times of all values relative to today's default."""
        self.write("recommend", setting, {"take": value, "time_relative_to_default": dict(ratios)})

    def recommend_fastest(self, setting: str, default: str, ratios: Mapping[str, float]) -> None:
        """Report the value that takes the least time, or the default where none gains :data:`GAIN`."""
        fastest = min(ratios, key=lambda value: ratios[value], default=default)
        is_worth_it = fastest in ratios and ratios[fastest] <= 1 - GAIN
        self.recommend(setting, fastest if is_worth_it else default, ratios)

    def seconds_left(self) -> float:
        """Return the seconds until the stage is ended."""
        return self._end - time.monotonic()

    def write(self, kind: str, name: str, value: Any) -> None:
        """Write one line."""
        print(json.dumps([kind, name, value]), file=self._stream, flush=True)
