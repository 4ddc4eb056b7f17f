"""One study per method and task, which proposes the method's next configuration.

A proposal depends on the seed, the study's name, the trial's number and the earlier trials of its task, and on nothing
that is lost when the driver dies. Optuna's samplers are shown the trials and propose the next point; they decide
nothing else. The trials are kept here, in the form that Optuna's samplers read, and not in a storage of Optuna's: the
source of truth is the sweep's journal, and a storage would look through all trials for each proposal. For Optuna's own
tools they are written to Optuna's file as well.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from orchestrator.common.trial_types import Ending, TrialRecord
from orchestrator.search.history import History, running_trial
from orchestrator.search.optuna_file import OptunaFile, open_storage
from orchestrator.search.prior_gate import PriorGate
from orchestrator.search.propose import propose
from orchestrator.search.queue import Queue
from orchestrator.search.samplers import SAMPLERS
from orchestrator.search.shared_settings import SharedSettings
from search_spaces._base import SearchSpace

__all__ = ["Study", "open_storage"]

SAMPLER_TURN = 3
"""Every third trial keeps the sampler's own settings: what suits other methods may not suit this one."""
Constraints = Callable[[Mapping[str, Any]], tuple[float, ...]]
MAX_PROPOSALS = 16
"""Maximum number of proposals for a trial; if each exceeds a constraint, the last is moved towards the default."""


class Study:
    """One method's trials on one task.

    Args:
        name: ``task/method``.
        space: The search space; its default is the first trial.
        higher_is_better: The direction of the metric.
        storage: Optuna's file.
        seed: The sweep's seed.
        sampler: One of :data:`orchestrator.search.samplers.SAMPLERS`.
        prior: Configurations from earlier sweeps, tried after the default.
        constraints: By how much a configuration exceeds each constraint, known before training; only configurations
            without a value above 0 are proposed.
        settings: The settings that the studies of the task share; without it this study shares none.
        prior_gate: The gate for the prior that the studies of the task share; without it this study has its own.
        metric: The name of the metric, for Optuna's tools.

    Raises:
        ValueError: If the default exceeds a constraint.
    """

    def __init__(
        self,
        name: str,
        space: SearchSpace,
        *,
        higher_is_better: bool,
        storage: OptunaFile,
        seed: int,
        sampler: str = "tpe",
        prior: Sequence[Mapping[str, Any]] = (),
        constraints: Constraints | None = None,
        settings: SharedSettings | None = None,
        prior_gate: PriorGate | None = None,
        metric: str = "",
    ) -> None:
        self.name = name
        self.higher_is_better = higher_is_better
        self._space = space
        self._seed = seed
        self._sampler = SAMPLERS[sampler]
        self._constraints = constraints
        if not self._is_allowed(space.default):
            raise ValueError(f"the default configuration of {name} exceeds a constraint")
        self._queue = Queue(
            space, prior, allowed=self._is_allowed, grid=self._sampler.lists_points, seed=self._derive_seed(-1)
        )
        self._history = History(
            space.distributions,
            higher_is_better=higher_is_better,
            learns_from_rungs=self._sampler.learns_from_rungs,
            best=self._sampler.best,
            recent=self._sampler.recent,
        )
        self._settings = settings or SharedSettings()
        self._settings.join(name, space, self._history, higher_is_better=higher_is_better)
        self._prior_gate = prior_gate or PriorGate()
        self._prior_gate.join(self._history, self._queue.prior, higher_is_better=higher_is_better)
        self._file = storage
        self._file.create(name, higher_is_better=higher_is_better, metric=metric)

    @property
    def started(self) -> int:
        """Number of trials that have started."""
        return len(self._history)

    def exhausted_by(self, trials: int) -> bool:
        """Return whether this number of trials has tried every point of the search space."""
        return self._queue.length is not None and trials >= self._queue.length

    def ask(self) -> tuple[int, dict[str, Any]]:
        """Start the next trial, and return its number and its parameters."""
        number = self.started
        params = self._queue.at(number, use_prior=self._prior_gate.use_prior)
        if params is None:
            params = self._sample(number)
        self._start(params)
        return number, params

    def report(self, number: int, rung: int, value: float) -> None:
        """Record a running trial's result at a rung, counted from 0."""
        self._history.report(number, rung, value)
        self._file.report(self.name, number, rung, value)

    def tell(self, number: int, state: Ending, value: float, reason: str) -> None:
        """End a trial; only a complete one's value counts."""
        self._history.end(number, state, value)
        self._file.end(self.name, number, state, value, reason)

    def restore(self, records: Sequence[TrialRecord], rungs: Sequence[int]) -> None:
        """Add the trials of an interrupted sweep; ask, report and tell continue from there.

        Args:
            records: All trials of the study, in the order of their numbers.
            rungs: Optimizer steps at which trials report.
        """
        searched = self._space.distributions
        for record in records:
            number = record.key.number
            # A release may search other parameters than the one that began the sweep; the default is what trials have
            # where none was proposed.
            self._start({name: record.params.get(name, self._space.default[name]) for name in searched})
            for step, value in record.values.items():
                self.report(number, rungs.index(step), value)
            if record.state != "running" and record.state != "paused":
                self.tell(number, record.state, record.value, record.reason)
        self._file.flush()

    def _start(self, params: Mapping[str, Any]) -> None:
        constraints = self._optuna_constraints(params)
        number = self.started
        self._history.start(params, constraints)
        self._file.start(self.name, number, params, self._space.distributions, constraints)

    def _sample(self, number: int) -> dict[str, Any]:
        """Return a proposal that exceeds no constraint.

        A sampler is shown the proposals that were refused and asked again. If none is allowed, the last proposal takes
        the default's values, one after the other, until it is.
        """
        shown = self._history.shown()
        for attempt in range(MAX_PROPOSALS):
            seed = self._derive_seed(number, attempt)
            params = propose(self._sampler, seed, self._space, shown, higher_is_better=self.higher_is_better)
            if number < self._sampler.at_random and number % SAMPLER_TURN:
                params |= self._settings.propose(self.name, seed)
            if self._is_allowed(params):
                return params
            shown.append(self._refused_trial(number + attempt, params))
        for name in sorted(params):
            params[name] = self._space.default[name]
            if self._is_allowed(params):
                break
        return params

    def _refused_trial(self, number: int, params: Mapping[str, Any]) -> FrozenTrial:
        trial = running_trial(number, params, self._space.distributions, self._optuna_constraints(params))
        trial.state = TrialState.PRUNED
        return trial

    def _optuna_constraints(self, params: Mapping[str, Any]) -> dict[str, float]:
        """Return the constraints' values by the names under which Optuna stores them."""
        values = self._constraints(params) if self._constraints else ()
        return {f"constraint {index}": value for index, value in enumerate(values)}

    def _is_allowed(self, params: Mapping[str, Any]) -> bool:
        return self._constraints is None or all(value <= 0 for value in self._constraints(params))

    def _derive_seed(self, number: int, attempt: int = 0) -> int:
        """Return a seed of 32 bits for the random draws of a trial's parameters."""
        text = f"{self._seed}:{self.name}:{number}" + (f":{attempt}" if attempt else "")
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])
