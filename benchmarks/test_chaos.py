from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from benchmarks._chaos_checks import Result, problems
from benchmarks._chaos_faults import Disturbed
from benchmarks._chaos_sweep import ChaosSweep

EVENTS: list[dict[str, Any]] = [
    {"event": "trial", "trial": "mail/lora/0"},
    {"event": "rung", "trial": "mail/lora/0", "step": 4, "value": 0.5},
    {"event": "end", "trial": "mail/lora/0", "state": "complete"},
    {"event": "selection", "recommended": "lora"},
]
LOGGED = Counter({("mail/lora/0", 4, 0.5): 1})
RESULT = Result(EVENTS, Counter({"mail/lora/0": 1}), Counter({"lora": 1}), Counter({"FINISHED": 2}), LOGGED)


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
        (replace(RESULT, states=Counter({"RUNNING": 2})), "MLflow's runs are {'RUNNING': 2}"),
        (replace(RESULT, logged=LOGGED + LOGGED), "MLflow has other values than the journal"),
        (replace(RESULT, logged=Counter()), "MLflow has other values than the journal"),
    ],
)
def test_chaos_finds_what_a_fault_has_changed(result: Result, problem: str) -> None:
    assert problem in problems(result, RESULT)


def test_chaos_finds_nothing_where_nothing_has_changed() -> None:
    assert problems(RESULT, RESULT) == []
    close = replace(changed(1, value=0.5 + 1e-7), logged=Counter({("mail/lora/0", 4, 0.5 + 1e-7): 1}))
    assert problems(close, RESULT) == []


@dataclass
class Traced(Disturbed):
    between: ClassVar[tuple[int, int]] = (0, 0)
    traces: ClassVar[tuple[str, ...]] = ("No space left",)
    writes: str = field(default="")

    def strike(self) -> None:
        with (self.sweep.folder / "sweeps" / "tiny-1" / "sweep.log").open("a") as log:
            log.write(self.writes)


def test_chaos_tells_of_a_strike_without_effect(tmp_path: Path) -> None:
    sweep = ChaosSweep(tmp_path)
    (tmp_path / "sweeps" / "tiny-1").mkdir(parents=True)
    (tmp_path / "sweeps" / "tiny-1" / "journal.jsonl").touch()
    disturbed = Traced(sweep, writes="OSError: No space left on device\n")
    assert disturbed.disturb(random.Random(0))
    assert disturbed.without_effect() == []
    disturbed.writes = ""
    assert disturbed.disturb(random.Random(0))
    assert disturbed.without_effect() == ["nothing shows that the sweep was disturbed, none in all"]
