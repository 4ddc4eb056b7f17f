"""How a method came out, in the words that every table uses."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.selection.results import outcome


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ({"method": "lora", "tied": True}, "recommended"),
        ({"method": "lora", "tied": True, "baseline_lead": (0.2, 0.1)}, "recommended"),
        (
            {"method": "lora", "tied": True, "baseline_lead": (0.2, -0.1)},
            "closest, not shown to be better than the baseline",
        ),
        ({"tied": True}, "tied"),
        ({"tied": False, "gap": None, "undecided": True}, "undecided: more trials may bring it ahead"),
        ({"tied": False, "gap": 0.1, "undecided": True}, "undecided: more trials may bring it ahead"),
        ({"tied": False, "gap": None, "cut": True, "reason": "cut by the cap of 2"}, "cut by the cap on finalists"),
        ({"tied": False, "gap": 0.25}, "at least 0.250 worse"),
        ({"tied": False, "gap": None, "reason": "0.200 lower than lora"}, "eliminated on validation"),
        ({"tied": False}, "eliminated on validation"),  # an event of an earlier release
    ],
)
def test_outcome_of_a_method_has_one_wording(result: dict[str, Any], words: str) -> None:
    assert outcome({"method": "ia3", **result}, "lora") == words
