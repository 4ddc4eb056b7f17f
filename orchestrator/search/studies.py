"""One Optuna study per method and task, in one journal file.

Optuna is told what happened and asked where to look next; it decides nothing else. What it returns
for a trial depends on the seed, the study's name, the trial's number and the trials before it, and on
nothing that is lost when the driver dies.
"""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from orchestrator.lines import cut_torn_line
from orchestrator.search.grid import points
from orchestrator.trials import Ending
from search_spaces._base import SearchSpace

_STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED}


def open_storage(path: Path) -> JournalStorage:
    """The storage in a file, which one process at a time may write.

    A torn last line and a lock are what a killed writer leaves; both are removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name(path.name + ".lock").unlink(missing_ok=True)
    cut_torn_line(path)
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # a line per trial would bury the sweep's own
    return JournalStorage(JournalFileBackend(str(path)))


class Study:
    """One method's trials on one task.

    Args:
        name: ``task/method``.
        space: where to look; its default is the first trial.
        higher_is_better: the direction of the metric.
        storage: where Optuna keeps them.
        seed: the sweep's.
    """

    def __init__(
        self, name: str, space: SearchSpace, *, higher_is_better: bool, storage: JournalStorage, seed: int
    ) -> None:
        self.name = name
        self.higher_is_better = higher_is_better
        self._space = space
        self._seed = seed
        self._queue = self._listed()
        self._study = optuna.create_study(
            storage=storage,
            study_name=name,
            direction="maximize" if higher_is_better else "minimize",
            load_if_exists=True,
        )
        self._trials: dict[int, optuna.Trial] = {}
        self.asked = len(self._study.get_trials(deepcopy=False))

    @property
    def exhausted(self) -> bool:
        """Every point of its space was tried."""
        return self._queue is not None and self.asked >= len(self._queue)

    def ask(self) -> tuple[int, dict[str, Any]]:
        """Start the next trial: its number and its parameters."""
        number = self.asked
        self._study.sampler = TPESampler(multivariate=True, constant_liar=True, seed=self._hash(number))
        if self._queue is not None:
            self._study.enqueue_trial(self._queue[number])
        elif number == 0:
            self._study.enqueue_trial(dict(self._space.default))
        trial = self._study.ask(fixed_distributions=dict(self._space.distributions))
        self._trials[trial.number] = trial
        self.asked += 1
        return trial.number, dict(trial.params)

    def report(self, number: int, rung: int, value: float) -> None:
        """Record a running trial's result at a rung, counted from 0."""
        self._trials[number].report(value, rung)

    def tell(self, number: int, state: Ending, value: float, reason: str) -> None:
        """End a trial. Only a complete one has a value; killed ones keep why, since Optuna calls them failed."""
        trial = self._trials.pop(number)
        if state == "killed":
            trial.set_user_attr("killed", reason)
        self._study.tell(trial, value if state == "complete" else None, _STATES.get(state, TrialState.FAIL))

    def _listed(self) -> list[dict[str, Any]] | None:
        """A small space's points in the order they are tried: the default, then the others, shuffled."""
        listed = points(self._space.distributions)
        if listed is None:
            return None
        default = dict(self._space.default)
        others = [point for point in listed if point != default]
        random.Random(self._hash(-1)).shuffle(others)
        return [default, *others]

    def _hash(self, number: int) -> int:
        """A seed of 32 bits for whatever is random about a trial's parameters."""
        return int.from_bytes(hashlib.sha256(f"{self._seed}:{self.name}:{number}".encode()).digest()[:4])
