from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from benchmarks._chaos_checks import Result, problems

EVENTS: list[dict[str, Any]] = [
    {"event": "trial", "trial": "mail/lora/0"},
    {"event": "rung", "trial": "mail/lora/0", "step": 4, "value": 0.5},
    {"event": "end", "trial": "mail/lora/0", "state": "complete"},
    {"event": "selection", "recommended": "lora"},
]
RESULT = Result(EVENTS, Counter({"mail/lora/0": 1}), Counter({"lora": 1}))


def changed(number: int, **fields: Any) -> Result:
    return replace(RESULT, events=[{**event, **fields} if n == number else event for n, event in enumerate(EVENTS)])


@pytest.mark.parametrize(
    ("result", "problem"),
    [
        (replace(RESULT, events=[*EVENTS, EVENTS[1]]), "a trial reported a rung twice"),
        (replace(RESULT, events=[*EVENTS[:2], EVENTS[3]]), "a trial began twice, or did not end once"),
        (replace(RESULT, events=[EVENTS[0], *EVENTS]), "a trial began twice, or did not end once"),
        (changed(2, state="failed"), "trials ended as {'failed': 1}"),
        (changed(1, value=0.51), "other values"),
        (changed(3, recommended="ia3"), "recommends ['ia3']"),
        (replace(RESULT, runs=Counter({"mail/lora/0": 2})), "MLflow has {'mail/lora/0': 2}"),
        (replace(RESULT, versions=Counter({"lora": 2})), "registered {'lora': 2}"),
    ],
)
def test_chaos_finds_what_a_fault_has_changed(result: Result, problem: str) -> None:
    assert problem in problems(result, RESULT)


def test_chaos_finds_nothing_where_nothing_has_changed() -> None:
    assert problems(RESULT, RESULT) == []
    assert problems(changed(1, value=0.5 + 1e-7), RESULT) == []
