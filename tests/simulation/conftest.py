from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from orchestrator.simulation.table import Table

Scores = Mapping[str, list[list[float]]]
STEPS = (10, 20, 40, 80)


def rows_of(scores: Scores, seconds: float = 1.0) -> list[dict[str, Any]]:
    """Return rows of a table: per method the scores of its configurations, each step taking so many seconds."""
    return [
        {
            "task": "mail",
            "method": method,
            "config_id": number,
            "params": json.dumps({"learning_rate": 10.0 ** -(number + 1), "rank": 2**number}),
            "step": step,
            "seconds": step * seconds,
            "score": score,
        }
        for method, curves in scores.items()
        for number, curve in enumerate(curves)
        for step, score in zip(STEPS, curve, strict=False)
    ]


@pytest.fixture
def make_table() -> Callable[[Scores], Table]:
    return lambda scores: Table.of("mail", rows_of(scores))
