from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial

from orchestrator.journal.events import Journal
from orchestrator.search.allocation import Allocation
from orchestrator.search.budget import SpendingLimits
from orchestrator.search.core import Search
from orchestrator.search.early_stopping import Halving
from orchestrator.search.plans import StudyPlan
from search_spaces._base import SearchSpace

RUNGS = (25, 50, 100)
HALVING = Halving(reduction_factor=2.0, min_results=4)

CONTINUOUS = SearchSpace(
    distributions={"learning_rate": FloatDistribution(1e-5, 1e-1, log=True), "dropout": FloatDistribution(0.0, 0.5)},
    default={"learning_rate": 1e-3, "dropout": 0.1},
    sources={},
)


class Clock:
    """A clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Sweep:
    """A search in its folder, and the files that it writes there."""

    def __init__(
        self,
        folder: Path,
        studies: Sequence[str] = ("mail/lora",),
        *,
        space: SearchSpace = CONTINUOUS,
        higher_is_better: bool = True,
        halving: Halving | None = HALVING,
        allocation: Allocation | None = None,
        saved: Sequence[Mapping[str, Any]] = (),
        **budget: Any,
    ) -> None:
        self.folder = folder
        self.clock = Clock()
        self.search = Search(
            [StudyPlan(study=s, space=space, higher_is_better=higher_is_better) for s in studies],
            RUNGS,
            storage_path=folder / "optuna.log",
            journal=Journal(folder / "journal.jsonl", self.clock),
            halving=halving,
            allocation=allocation,
            saved=saved,
            budget=SpendingLimits(**budget),
            clock=self.clock,
            seed=7,
        )

    def events(self, name: str) -> list[dict[str, Any]]:
        return [event for event in self.journal() if event["event"] == name]

    def journal(self) -> list[dict[str, Any]]:
        return Journal.read(self.folder / "journal.jsonl")

    def ended(self) -> dict[str, str]:
        """Return how each trial ended, after asserting that each trial that started ended once."""
        started = [event["trial"] for event in self.events("trial")]
        assert Counter(event["trial"] for event in self.events("end")) == Counter(started)
        return {event["trial"]: event["state"] for event in self.events("end")}

    def optuna(self, study: str) -> list[FrozenTrial]:
        """Return the trials in Optuna's file, read anew."""
        storage = JournalStorage(JournalFileBackend(str(self.folder / "optuna.log")))
        return optuna.load_study(study_name=study, storage=storage).get_trials()

    def assert_optuna_agrees(self) -> None:
        """Assert that Optuna's file has the same trials, states and values, and that none of them is open."""
        names = {"complete": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL", "killed": "FAIL"}
        for study in {record.key.study for record in self.search.trials()}:
            records = [record for record in self.search.trials() if record.key.study == study]
            for record, trial in zip(records, self.optuna(study), strict=True):
                assert trial.number == record.key.number
                assert trial.state.name == names[record.state]
                reported = {RUNGS.index(step): value for step, value in record.values.items()}
                assert trial.intermediate_values == pytest.approx(reported, nan_ok=True)
                if record.state == "complete":
                    assert trial.value == record.values[RUNGS[-1]]


def curve(params: dict[str, Any], step: int) -> float:
    """A score that is best at a rate of 1e-3 and grows with the steps."""
    distance = abs(math.log10(params["learning_rate"]) + 3)
    return (1 - math.exp(-step / 40)) / (1 + distance) - 0.01 * params["dropout"]


@pytest.fixture
def make_sweep(tmp_path: Path) -> Callable[..., Sweep]:
    def make(*args: Any, folder: str = "sweep", **kwargs: Any) -> Sweep:
        return Sweep(tmp_path / folder, *args, **kwargs)

    return make
